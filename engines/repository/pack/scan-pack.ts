/** What a pack file holds: by its footer, or by a scan where there is none that is sound. */
import { sumOf } from '../../../schema/repository/digest.ts';
import {
  FOOTER_ENTRY_BYTES,
  FOOTER_TRAILER_BYTES,
  MAX_PACK_RECORDS,
  PACK_HEADER_BYTES,
  RECORD_HEADER_BYTES,
} from '../../../schema/repository/limits.ts';
import {
  decodeFooterEntries,
  decodePackHeader,
  decodeTrailer,
  type PackContents,
  type PackRecord,
} from '../../../schema/repository/pack.ts';
import { decodeRecordHeader } from '../../../schema/repository/record.ts';
import type { StoredFile } from '../storage/store.ts';

/** `endBytes`: where the last sound record ends; only of a pack that is not `finished` by a sound footer. */
export type PackInspection = { contents: PackContents; finished: boolean; records: PackRecord[]; endBytes: number };

/** Null when its header is not that of pack `packId` of this repository. */
export async function inspectPack(file: StoredFile, packId: string, uuid: string): Promise<PackInspection | null> {
  const header = decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES));
  if (header?.packId !== packId || header.uuid !== uuid) return null;
  const { contents } = header;
  const footer = await readFooter(file);
  return footer
    ? { contents, finished: true, records: footer, endBytes: 0 }
    : { contents, finished: false, ...(await scan(file)) };
}

async function readAt(file: StoredFile, position: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  return bytes.subarray(0, await file.read(bytes, position));
}

async function readFooter(file: StoredFile): Promise<PackRecord[] | null> {
  const fileBytes = await file.lengthBytes();
  if (fileBytes < PACK_HEADER_BYTES + FOOTER_TRAILER_BYTES) return null;
  const trailer = decodeTrailer(await readAt(file, fileBytes - FOOTER_TRAILER_BYTES, FOOTER_TRAILER_BYTES), fileBytes);
  if (!trailer) return null;
  return decodeFooterEntries(await readAt(file, trailer.entriesOffset, trailer.count * FOOTER_ENTRY_BYTES), trailer);
}

/**
 * Sound records up to the first header that fails or payload that is cut; one with a damaged payload is left out, since
 * those behind it may be needed.
 */
async function scan(file: StoredFile): Promise<{ records: PackRecord[]; endBytes: number }> {
  const records: PackRecord[] = [];
  let endBytes = PACK_HEADER_BYTES;
  for (let at = PACK_HEADER_BYTES; records.length < MAX_PACK_RECORDS;) {
    const header = decodeRecordHeader(await readAt(file, at, RECORD_HEADER_BYTES));
    if (!header) break;
    const payload = await readAt(file, at + RECORD_HEADER_BYTES, header.storedLength);
    if (payload.length !== header.storedLength) break;
    const offset = at;
    at += RECORD_HEADER_BYTES + header.storedLength;
    if (sumOf(payload).compare(header.payloadSum) !== 0) continue;
    records.push({ header, offset });
    endBytes = at;
  }
  return { records, endBytes };
}

/** What a pack file holds: by its footer, or by a scan where there is none that is sound. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
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
import { decodeRecordHeader, findRecordMagic, type RecordHeader } from '../../../schema/repository/record.ts';
import type { StoredFile } from '../storage/store.ts';

const SEARCH_BYTES = 1024 * 1024;

/** Whether a restore point is one of this repository. */
export type WriterCheck = (writer: RestorePointId) => Promise<boolean>;
/** `uuid` of the repository. */
export type PackIdentity = { packId: string; uuid: string; isOurs: WriterCheck };

/** `endBytes`: where the last sound record ends; only of a pack that is not `finished` by a sound footer. */
export type PackInspection = { contents: PackContents; finished: boolean; records: PackRecord[]; endBytes: number };

/** Null when its header is not that of pack `packId` of this repository. */
export async function inspectPack(
  file: StoredFile,
  { packId, uuid, isOurs }: PackIdentity,
): Promise<PackInspection | null> {
  const header = decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES));
  if (header?.packId !== packId || header.uuid !== uuid) return null;
  const { contents } = header;
  const footer = await readFooter(file);
  return footer
    ? { contents, finished: true, records: footer, endBytes: 0 }
    : { contents, finished: false, ...(await scan(file, isOurs)) };
}

async function readAt(file: StoredFile, position: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(lengthBytes);
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
 * Sound records, one behind the other; one with a damaged payload is left out. Behind a header that fails the next sound
 * record is searched for: it may have been durable for long, whatever became of those before it.
 */
async function scan(file: StoredFile, isOurs: WriterCheck): Promise<{ records: PackRecord[]; endBytes: number }> {
  const records: PackRecord[] = [];
  const writers = new Set<RestorePointId>();
  const isTrusted: WriterCheck = async (writer) => writers.has(writer) || (await isOurs(writer));
  let endBytes = PACK_HEADER_BYTES;
  for (let at: number | null = PACK_HEADER_BYTES; at !== null && records.length < MAX_PACK_RECORDS;) {
    const found = await readRecord(file, at);
    if (found === 'cut') break;
    if (!found) at = await findRecord(file, at + 1, isTrusted);
    else {
      if (found.isSound) {
        records.push({ header: found.header, offset: at });
        writers.add(found.header.restorePointId);
        endBytes = found.endBytes;
      }
      at = found.endBytes;
    }
  }
  return { records, endBytes };
}

type FoundRecord = { header: RecordHeader; isSound: boolean; endBytes: number };

/** Null: no header is there; 'cut': the file ends before the payload does. */
async function readRecord(file: StoredFile, at: number): Promise<FoundRecord | 'cut' | null> {
  const header = decodeRecordHeader(await readAt(file, at, RECORD_HEADER_BYTES));
  if (!header) return null;
  const payload = await readAt(file, at + RECORD_HEADER_BYTES, header.storedLength);
  if (payload.length !== header.storedLength) return 'cut';
  const isSound = sumOf(payload).compare(header.payloadSum) === 0;
  return { header, isSound, endBytes: at + RECORD_HEADER_BYTES + header.storedLength };
}

/**
 * Offset of the next sound record from `from` on, or null. Only of a writer that is trusted: a payload may hold the pack
 * of another repository, or what a guest would like to be taken for a record; neither knows our restore points.
 */
async function findRecord(file: StoredFile, from: number, isTrusted: WriterCheck): Promise<number | null> {
  for (let at = from; ;) {
    const piece = await readAt(file, at, SEARCH_BYTES);
    for (let hit = findRecordMagic(piece, 0); hit >= 0; hit = findRecordMagic(piece, hit + 1)) {
      const header = decodeRecordHeader(await readAt(file, at + hit, RECORD_HEADER_BYTES));
      if (!header || !(await isTrusted(header.restorePointId))) continue;
      const found = await readRecord(file, at + hit);
      if (found && found !== 'cut' && found.isSound) return at + hit;
    }
    if (piece.length < SEARCH_BYTES) return null;
    // A magic may lie across the border.
    at += SEARCH_BYTES - 3;
  }
}

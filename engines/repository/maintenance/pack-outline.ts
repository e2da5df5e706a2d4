/**
 * What a pack should hold: by its footer; else by what follows on what, past what is damaged. Entries of a damaged footer
 * are found on the way: each has the header, and the offset, of a record once more.
 */
import { sumOf } from '../../../schema/repository/digest.ts';
import { FOOTER_ENTRY_BYTES, PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { decodePackHeader, type PackRecord } from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, isSameRecord, type RecordHeader } from '../../../schema/repository/record.ts';
import { readAt, readFooter } from '../pack/scan-pack.ts';
import { orUnread } from '../storage/files.ts';
import type { StoredFile } from '../storage/store.ts';

/** `records`: in the order of the file. `hasFooter`: a sound one. `faults`: of the pack as a whole. */
export type PackOutline = { records: PackRecord[]; hasFooter: boolean; faults: string[] };

const SEARCH_BYTES = 1024 * 1024;
const MAGIC = Buffer.from('TMRC');

export async function outlineOf(
  file: StoredFile,
  { packId, uuid }: { packId: string; uuid: string },
): Promise<PackOutline> {
  const faults: string[] = [];
  const header = await orUnread(async () => decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES)));
  if (header?.packId !== packId || header.uuid !== uuid) faults.push('its header is damaged');
  const fileBytes = await file.lengthBytes();
  const footer = await orUnread(() => readFooter(file, fileBytes));
  if (!footer) faults.push('its footer is damaged');
  const records = footer ?? (await searchRecords(file, fileBytes));
  return { records: records.sort((a, b) => a.offset - b.offset), hasFooter: footer !== null, faults };
}

async function searchRecords(file: StoredFile, fileBytes: number): Promise<PackRecord[]> {
  const records = new Map<number, PackRecord>();
  for (let at = PACK_HEADER_BYTES; at + RECORD_HEADER_BYTES <= fileBytes;) {
    const record = await recordAt(file, at, records);
    if (record && !records.has(record.offset)) records.set(record.offset, record);
    if (!record) at = await nextMagic(file, at + 1, fileBytes);
    else at += record.offset === at ? RECORD_HEADER_BYTES + record.header.storedLength : FOOTER_ENTRY_BYTES;
  }
  return [...records.values()];
}

/** The record that begins here, or of which the footer's entry does; null: neither. */
async function recordAt(
  file: StoredFile,
  offset: number,
  known: ReadonlyMap<number, PackRecord>,
): Promise<PackRecord | null> {
  const bytes = await orUnread(() => readAt(file, offset, FOOTER_ENTRY_BYTES));
  const header = bytes && decodeRecordHeader(bytes);
  if (!header || bytes.byteLength < FOOTER_ENTRY_BYTES) return header && { header, offset };
  const named = Number(bytes.readBigUInt64LE(RECORD_HEADER_BYTES));
  const before = known.get(named);
  if (before && isSameRecord(before.header, header)) return before;
  const isEntry = named >= PACK_HEADER_BYTES && named + RECORD_HEADER_BYTES + header.storedLength <= offset;
  if (isEntry && !(await isPayloadOf(file, header, offset)) && (await isPayloadOf(file, header, named)))
    return { header, offset: named };
  return { header, offset };
}

async function isPayloadOf(file: StoredFile, header: RecordHeader, offset: number): Promise<boolean> {
  const payload = await orUnread(() => readAt(file, offset + RECORD_HEADER_BYTES, header.storedLength));
  return payload !== null && sumOf(payload).compare(header.payloadSum) === 0;
}

/** `fileBytes` when there is none. */
async function nextMagic(file: StoredFile, from: number, fileBytes: number): Promise<number> {
  for (let at = from; at < fileBytes; at += SEARCH_BYTES) {
    const start = at;
    // What begins at its end is found as well.
    const piece = await orUnread(() => readAt(file, start, SEARCH_BYTES + MAGIC.length - 1));
    const found = piece?.indexOf(MAGIC) ?? -1;
    if (found >= 0) return at + found;
  }
  return fileBytes;
}

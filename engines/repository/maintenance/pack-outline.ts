/** What a pack should hold: by its footer, or by what follows on what. */
import { FOOTER_ENTRY_BYTES, PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { decodePackHeader, type PackRecord } from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, isSameRecord, type RecordHeader } from '../../../schema/repository/record.ts';
import { readAt, readFooter } from '../pack/scan-pack.ts';
import { isReadFailure } from '../storage/files.ts';
import type { StoredFile } from '../storage/store.ts';

/** `records`: in the order of the file. `faults`: of the pack as a whole. */
export type PackOutline = { records: PackRecord[]; faults: string[] };

/** `past`: where to go on where no record begins; null ends it there. */
export async function outlineOf(
  file: StoredFile,
  { packId, uuid }: { packId: string; uuid: string },
  past: (offset: number, fileBytes: number) => Promise<number | null> = async () => null,
): Promise<PackOutline> {
  const faults: string[] = [];
  const header = await orUnread(async () => decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES)));
  if (header?.packId !== packId || header.uuid !== uuid) faults.push('its header is damaged');
  const fileBytes = await file.lengthBytes();
  const footer = await orUnread(() => readFooter(file, fileBytes));
  if (!footer) faults.push('its footer is damaged');
  const records = footer ?? (await followRecords(file, fileBytes, past));
  return { records: records.sort((a, b) => a.offset - b.offset), faults };
}

/** Null for what the medium does not give. */
export async function orUnread<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isReadFailure(error)) return null;
    throw error;
  }
}

async function followRecords(
  file: StoredFile,
  fileBytes: number,
  past: (offset: number, fileBytes: number) => Promise<number | null>,
): Promise<PackRecord[]> {
  const records: PackRecord[] = [];
  for (let offset: number | null = PACK_HEADER_BYTES; offset !== null && offset < fileBytes;) {
    const header: RecordHeader | null = await headerAt(file, offset, records);
    if (header) records.push({ header, offset });
    offset = header ? offset + RECORD_HEADER_BYTES + header.storedLength : await past(offset, fileBytes);
  }
  return records;
}

/** Null where no record begins. Footer entries begin like records: with the header, then the offset, of one before. */
async function headerAt(file: StoredFile, offset: number, before: readonly PackRecord[]): Promise<RecordHeader | null> {
  const bytes = await orUnread(() => readAt(file, offset, FOOTER_ENTRY_BYTES));
  const header = bytes && decodeRecordHeader(bytes);
  if (!header || bytes.byteLength < FOOTER_ENTRY_BYTES) return header;
  const named = Number(bytes.readBigUInt64LE(RECORD_HEADER_BYTES));
  return before.some((record) => record.offset === named && isSameRecord(record.header, header)) ? null : header;
}

/** Pack header and footer (FORMAT.md, "Pack"). */
import { asBuffer, crcOf, isZero, sumOf } from './digest.ts';
import {
  FOOTER_ENTRY_BYTES,
  FOOTER_TRAILER_BYTES,
  FORMAT_VERSION,
  MAX_PACK_BYTES,
  MAX_PACK_RECORDS,
  PACK_HEADER_BYTES,
  RECORD_HEADER_BYTES,
} from './limits.ts';
import { decodeRecordHeader, type RecordHeader } from './record.ts';

const HEADER_MAGIC = Buffer.from('TMPK');
const TRAILER_MAGIC = Buffer.from('TMPF');
const contentsKinds = ['blocks', 'pages'] as const;
export type PackContents = (typeof contentsKinds)[number];

/** `uuid` of the repository and `packId`: 32 hex digits. */
export type PackHeader = { contents: PackContents; uuid: string; packId: string };
/** `header`: the record's 128 header bytes as they are in the pack; `offset` of them in the file. */
export type FooterEntry = { header: Uint8Array; offset: number };
export type PackTrailer = { count: number; entriesOffset: number; sum: Uint8Array };
export type PackRecord = { header: RecordHeader; offset: number };

export function encodePackHeader(header: PackHeader): Buffer {
  const bytes = Buffer.alloc(PACK_HEADER_BYTES);
  HEADER_MAGIC.copy(bytes, 0);
  bytes[4] = FORMAT_VERSION;
  bytes[5] = contentsKinds.indexOf(header.contents) + 1;
  bytes.write(header.uuid, 8, 16, 'hex');
  bytes.write(header.packId, 24, 16, 'hex');
  bytes.writeUInt32LE(crcOf(bytes.subarray(0, 60)), 60);
  return bytes;
}

export function decodePackHeader(source: Uint8Array): PackHeader | null {
  if (source.byteLength < PACK_HEADER_BYTES) return null;
  const bytes = asBuffer(source).subarray(0, PACK_HEADER_BYTES);
  if (bytes.compare(HEADER_MAGIC, 0, 4, 0, 4) !== 0 || bytes.readUInt32LE(60) !== crcOf(bytes.subarray(0, 60)))
    return null;
  const contents = contentsKinds[bytes[5]! - 1];
  if (bytes[4] !== FORMAT_VERSION || !contents) return null;
  if (!isZero(bytes.subarray(6, 8)) || !isZero(bytes.subarray(40, 60))) return null;
  return { contents, uuid: bytes.toString('hex', 8, 24), packId: bytes.toString('hex', 24, 40) };
}

/** Entries and trailer, to be written at `entriesOffset`, the end of the records. */
export function encodeFooter(entries: readonly FooterEntry[], entriesOffset: number): Buffer {
  const sorted = [...entries].sort(
    (a, b) => asBuffer(a.header).compare(asBuffer(b.header), 40, 72, 40, 72) || a.offset - b.offset,
  );
  const bytes = Buffer.alloc(sorted.length * FOOTER_ENTRY_BYTES + FOOTER_TRAILER_BYTES);
  for (const [index, entry] of sorted.entries()) {
    bytes.set(entry.header, index * FOOTER_ENTRY_BYTES);
    bytes.writeBigUInt64LE(BigInt(entry.offset), index * FOOTER_ENTRY_BYTES + RECORD_HEADER_BYTES);
  }
  const trailer = bytes.subarray(sorted.length * FOOTER_ENTRY_BYTES);
  TRAILER_MAGIC.copy(trailer, 0);
  trailer[4] = FORMAT_VERSION;
  trailer.writeUInt32LE(sorted.length, 8);
  trailer.writeBigUInt64LE(BigInt(entriesOffset), 16);
  trailer.set(sumOf(bytes.subarray(0, sorted.length * FOOTER_ENTRY_BYTES)), 24);
  trailer.writeUInt32LE(crcOf(trailer.subarray(0, 60)), 60);
  return bytes;
}

/** The last 64 bytes of a pack of `fileBytes`, or null when they are not a trailer that fits that file. */
export function decodeTrailer(source: Uint8Array, fileBytes: number): PackTrailer | null {
  if (source.byteLength !== FOOTER_TRAILER_BYTES) return null;
  const bytes = asBuffer(source);
  if (bytes.compare(TRAILER_MAGIC, 0, 4, 0, 4) !== 0 || bytes.readUInt32LE(60) !== crcOf(bytes.subarray(0, 60)))
    return null;
  const count = bytes.readUInt32LE(8);
  const entriesOffset = Number(bytes.readBigUInt64LE(16));
  if (bytes[4] !== FORMAT_VERSION || count > MAX_PACK_RECORDS) return null;
  if (entriesOffset < PACK_HEADER_BYTES || entriesOffset > MAX_PACK_BYTES) return null;
  if (![bytes.subarray(5, 8), bytes.subarray(12, 16), bytes.subarray(40, 60)].every(isZero)) return null;
  if (entriesOffset + count * FOOTER_ENTRY_BYTES + FOOTER_TRAILER_BYTES !== fileBytes) return null;
  return { count, entriesOffset, sum: bytes.subarray(24, 40) };
}

/** Whether the entry at `at` comes after the one before it: by id, then by offset. */
function isAfter(bytes: Buffer, at: number): boolean {
  const before = at - FOOTER_ENTRY_BYTES;
  const byId = bytes.compare(bytes, before + 40, before + 72, at + 40, at + 72);
  if (byId !== 0) return byId > 0;
  return bytes.readBigUInt64LE(at + RECORD_HEADER_BYTES) > bytes.readBigUInt64LE(before + RECORD_HEADER_BYTES);
}

/** The records a footer names, or null when its sum, a header, an offset or their order is wrong. */
export function decodeFooterEntries(source: Uint8Array, trailer: PackTrailer): PackRecord[] | null {
  const bytes = asBuffer(source);
  if (bytes.byteLength !== trailer.count * FOOTER_ENTRY_BYTES || sumOf(bytes).compare(trailer.sum) !== 0) return null;
  const records: PackRecord[] = [];
  for (let at = 0; at < bytes.byteLength; at += FOOTER_ENTRY_BYTES) {
    const header = decodeRecordHeader(bytes.subarray(at, at + RECORD_HEADER_BYTES));
    const offset = Number(bytes.readBigUInt64LE(at + RECORD_HEADER_BYTES));
    if (!header || offset < PACK_HEADER_BYTES) return null;
    if (offset + RECORD_HEADER_BYTES + header.storedLength > trailer.entriesOffset) return null;
    if (at > 0 && !isAfter(bytes, at)) return null;
    records.push({ header, offset });
  }
  return records;
}

/** Ledger frames (FORMAT.md, "Open restore point"). */
import { asBuffer, crcOf, isZero } from './digest.ts';
import {
  DIGEST_BYTES,
  FORMAT_VERSION,
  LEDGER_HEADER_BYTES,
  MAX_DISK_BYTES,
  MAX_DISKS,
  MAX_LEDGER_BODY_BYTES,
  MAX_WINDOW_BLOCKS,
  MAX_WINDOWS,
} from './limits.ts';

const MAGIC = Buffer.from('TMLR');
const kinds = ['window', 'untouched'] as const;
const entryKinds = ['data', 'zero', 'unallocated'] as const;

/** Bytes by the class the source gave them. */
export type ClassSums = { notReadBytes: number; unallocatedBytes: number; zeroBytes: number; dataBytes: number };
/** `block`: index in the window. `digest` only of data. */
export type LedgerEntry =
  { block: number; kind: 'data'; digest: Uint8Array } | { block: number; kind: 'zero' | 'unallocated' };

export type LedgerRecord = {
  kind: (typeof kinds)[number];
  disk: number;
  binding: number;
  fence: number;
  firstWindow: number;
  windowCount: number;
  declared: ClassSums;
  /** Part of `declared` that equals the base. */
  unchanged: ClassSums;
  /** Blocks that are not unchanged, ascending. */
  entries: LedgerEntry[];
};

export type LedgerFrameHeader = Omit<LedgerRecord, 'entries'> & { bodyBytes: number; entryCount: number };

function encodeEntries(entries: readonly LedgerEntry[]): { body: Buffer; count: number } {
  const body = Buffer.alloc(MAX_LEDGER_BODY_BYTES);
  let at = 0;
  let count = 0;
  let last: { entry: LedgerEntry; at: number; more: number } | null = null;
  for (const entry of entries) {
    const joins =
      last &&
      entry.kind !== 'data' &&
      last.entry.kind === entry.kind &&
      last.entry.block + last.more + 1 === entry.block;
    if (last && joins) {
      last.more += 1;
      body[last.at + 3] = last.more;
      continue;
    }
    last = { entry, at, more: 0 };
    body.writeUInt16LE(entry.block, at);
    body[at + 2] = entryKinds.indexOf(entry.kind);
    at += 4;
    if (entry.kind === 'data') at += asBuffer(entry.digest).copy(body, at);
    count += 1;
  }
  return { body: body.subarray(0, at), count };
}

const sumFields = ['notReadBytes', 'unallocatedBytes', 'zeroBytes', 'dataBytes'] as const;

function writeSums(bytes: Buffer, at: number, sums: ClassSums): void {
  for (const [index, field] of sumFields.entries()) bytes.writeBigUInt64LE(BigInt(sums[field]), at + index * 8);
}

function readSums(bytes: Buffer, at: number): ClassSums {
  const of = (index: number): number => Number(bytes.readBigUInt64LE(at + index * 8));
  return { notReadBytes: of(0), unallocatedBytes: of(1), zeroBytes: of(2), dataBytes: of(3) };
}

export function encodeLedgerRecord(record: LedgerRecord): Buffer {
  const { body, count } = encodeEntries(record.entries);
  const header = Buffer.alloc(LEDGER_HEADER_BYTES);
  MAGIC.copy(header, 0);
  header[4] = FORMAT_VERSION;
  header[5] = kinds.indexOf(record.kind) + 1;
  header.writeUInt16LE(record.disk, 6);
  header.writeUInt32LE(record.binding, 8);
  header.writeUInt32LE(body.length, 12);
  header.writeBigUInt64LE(BigInt(record.fence), 16);
  header.writeUInt32LE(record.firstWindow, 24);
  header.writeUInt32LE(record.windowCount, 28);
  writeSums(header, 32, record.declared);
  writeSums(header, 64, record.unchanged);
  header.writeUInt32LE(count, 96);
  header.writeUInt32LE(crcOf(body, crcOf(header.subarray(0, 124))), 124);
  return Buffer.concat([header, body]);
}

/** The header of a frame, its crc not yet checked; null when it cannot be one. Limits hold when it is returned. */
export function decodeLedgerHeader(source: Uint8Array): LedgerFrameHeader | null {
  if (source.byteLength < LEDGER_HEADER_BYTES) return null;
  const bytes = asBuffer(source);
  const kind = kinds[bytes[5]! - 1];
  if (bytes.compare(MAGIC, 0, 4, 0, 4) !== 0 || bytes[4] !== FORMAT_VERSION || !kind) return null;
  const header: LedgerFrameHeader = {
    kind,
    disk: bytes.readUInt16LE(6),
    binding: bytes.readUInt32LE(8),
    bodyBytes: bytes.readUInt32LE(12),
    fence: Number(bytes.readBigUInt64LE(16)),
    firstWindow: bytes.readUInt32LE(24),
    windowCount: bytes.readUInt32LE(28),
    declared: readSums(bytes, 32),
    unchanged: readSums(bytes, 64),
    entryCount: bytes.readUInt32LE(96),
  };
  return isSoundHeader(header) && isZero(bytes.subarray(100, 124)) ? header : null;
}

function isSoundHeader(header: LedgerFrameHeader): boolean {
  const { kind, disk, fence, firstWindow, windowCount, bodyBytes, entryCount } = header;
  if (disk >= MAX_DISKS || fence > Number.MAX_SAFE_INTEGER) return false;
  if (windowCount < 1 || firstWindow + windowCount > MAX_WINDOWS) return false;
  const sums = [...Object.values(header.declared), ...Object.values(header.unchanged)];
  if (sums.some((bytes) => bytes > MAX_DISK_BYTES)) return false;
  if (kind === 'untouched') return bodyBytes === 0 && entryCount === 0;
  return windowCount === 1 && bodyBytes <= MAX_LEDGER_BODY_BYTES && entryCount <= MAX_WINDOW_BLOCKS;
}

function decodeEntries(body: Buffer, entryCount: number): LedgerEntry[] | null {
  const entries: LedgerEntry[] = [];
  let at = 0;
  let next = 0;
  for (let index = 0; index < entryCount; index += 1) {
    if (at + 4 > body.length) return null;
    const block = body.readUInt16LE(at);
    const kind = entryKinds[body[at + 2]!];
    const more = body[at + 3]!;
    at += 4;
    if (!kind || block < next || block + more >= MAX_WINDOW_BLOCKS) return null;
    next = block + more + 1;
    if (kind === 'data') {
      if (more !== 0 || at + DIGEST_BYTES > body.length) return null;
      entries.push({ block, kind, digest: body.subarray(at, at + DIGEST_BYTES) });
      at += DIGEST_BYTES;
    } else for (let step = 0; step <= more; step += 1) entries.push({ block: block + step, kind });
  }
  return at === body.length ? entries : null;
}

/** A whole frame (header and body), or null when it is torn or damaged. */
export function decodeLedgerRecord(frame: Uint8Array): LedgerRecord | null {
  const header = decodeLedgerHeader(frame);
  if (!header || frame.byteLength !== LEDGER_HEADER_BYTES + header.bodyBytes) return null;
  const bytes = asBuffer(frame);
  const body = bytes.subarray(LEDGER_HEADER_BYTES);
  if (bytes.readUInt32LE(124) !== crcOf(body, crcOf(bytes.subarray(0, 124)))) return null;
  const entries = decodeEntries(body, header.entryCount);
  if (!entries) return null;
  const { bodyBytes: _bytes, entryCount: _count, ...fields } = header;
  return { ...fields, entries };
}

/** Record header of 128 bytes (FORMAT.md, "Record"). */
import type { RestorePointId } from '../domain/ids.ts';
import { codecs, type Codec } from '../domain/states.ts';
import { asBuffer, crcOf, isZero } from './digest.ts';
import { FORMAT_VERSION, MAX_RAW_BYTES, MAX_STORED_GROWTH_BYTES, RECORD_HEADER_BYTES } from './limits.ts';

const MAGIC = Buffer.from('TMRC');
const kinds = ['block', 'page', 'fill'] as const;
export type RecordKind = (typeof kinds)[number];

/** Where the next header may begin, at `from` or behind it; -1 when none does. */
export const findRecordMagic = (bytes: Buffer, from: number): number => bytes.indexOf(MAGIC, from);

/** `id` and `payloadSum` are views of 32 and 16 bytes. Lengths in bytes. */
export type RecordHeader = {
  kind: RecordKind;
  codec: Codec;
  rawLength: number;
  storedLength: number;
  restorePointId: RestorePointId;
  id: Uint8Array;
  payloadSum: Uint8Array;
};

/** Whether lengths and codec agree and keep the limits. */
export function isSoundShape(header: Pick<RecordHeader, 'codec' | 'rawLength' | 'storedLength'>): boolean {
  const { codec, rawLength, storedLength } = header;
  if (rawLength < 1 || rawLength > MAX_RAW_BYTES || storedLength < 1) return false;
  return codec === 'none' ? storedLength === rawLength : storedLength <= rawLength + MAX_STORED_GROWTH_BYTES;
}

export function encodeRecordHeader(header: RecordHeader): Buffer {
  const bytes = Buffer.alloc(RECORD_HEADER_BYTES);
  MAGIC.copy(bytes, 0);
  bytes[4] = FORMAT_VERSION;
  bytes[5] = kinds.indexOf(header.kind) + 1;
  bytes[6] = codecs.indexOf(header.codec);
  bytes.writeUInt32LE(header.rawLength, 12);
  bytes.writeUInt32LE(header.storedLength, 16);
  bytes.write(header.restorePointId, 24, 16, 'hex');
  bytes.set(header.id, 40);
  bytes.set(header.payloadSum, 96);
  bytes.writeUInt32LE(crcOf(bytes.subarray(0, 124)), 124);
  return bytes;
}

/** The header at the start of `source`, or null when it is not a sound one of version 0 in the clear. */
export function decodeRecordHeader(source: Uint8Array): RecordHeader | null {
  if (source.byteLength < RECORD_HEADER_BYTES) return null;
  const bytes = asBuffer(source).subarray(0, RECORD_HEADER_BYTES);
  if (bytes.compare(MAGIC, 0, 4, 0, 4) !== 0 || bytes.readUInt32LE(124) !== crcOf(bytes.subarray(0, 124))) return null;
  const kind = kinds[bytes[5]! - 1];
  const codec = codecs[bytes[6]!];
  if (bytes[4] !== FORMAT_VERSION || !kind || !codec || bytes[7] !== 0) return null;
  if (!isZero(bytes.subarray(8, 12)) || !isZero(bytes.subarray(20, 24)) || !isZero(bytes.subarray(72, 96))) return null;
  if (!isZero(bytes.subarray(112, 124))) return null;
  const header: RecordHeader = {
    kind,
    codec,
    rawLength: bytes.readUInt32LE(12),
    storedLength: bytes.readUInt32LE(16),
    restorePointId: bytes.toString('hex', 24, 40) as RestorePointId,
    id: bytes.subarray(40, 72),
    payloadSum: bytes.subarray(96, 112),
  };
  return isSoundShape(header) ? header : null;
}

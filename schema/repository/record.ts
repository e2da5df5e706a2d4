/** Record header of 128 bytes (FORMAT.md, "Record"). */
import { TidemarkError, type ErrorCode } from '../domain/errors.ts';
import type { RestorePointId } from '../domain/ids.ts';
import { codecs, type Codec } from '../domain/states.ts';
import { asBuffer, crcOf, isZero } from './digest.ts';
import { FORMAT_VERSION, MAX_RAW_BYTES, RECORD_HEADER_BYTES, SALT_BYTES, TAG_BYTES } from './limits.ts';

const MAGIC = Buffer.from('TMRC');
const CIPHER_AES_256_GCM = 1;
const kinds = ['block', 'page', 'fill'] as const;
export type RecordKind = (typeof kinds)[number];

/** `keyId` of the data key, from 1; `salt` of 24 bytes. */
export type RecordEncryption = { keyId: number; salt: Uint8Array };

/** Where the next header may begin, at `from` or behind it; -1 when none does. */
export const findRecordMagic = (bytes: Buffer, from: number): number => bytes.indexOf(MAGIC, from);

/** `id` and `payloadSum` are views of 32 and 16 bytes. Lengths in bytes. `encryption` is absent in the clear. */
export type RecordHeader = {
  kind: RecordKind;
  codec: Codec;
  rawLength: number;
  storedLength: number;
  restorePointId: RestorePointId;
  id: Uint8Array;
  payloadSum: Uint8Array;
  encryption?: RecordEncryption;
};

type Shape = Pick<RecordHeader, 'codec' | 'rawLength' | 'storedLength'>;

/** Whether lengths and codec agree and keep the limits. */
export function isSoundShape({ codec, rawLength, storedLength }: Shape, isEncrypted = false): boolean {
  const encodedLength = isEncrypted ? storedLength - TAG_BYTES : storedLength;
  if (rawLength < 1 || rawLength > MAX_RAW_BYTES || encodedLength < 1) return false;
  return codec === 'none' ? encodedLength === rawLength : encodedLength <= rawLength;
}

/** Offsets in the header. */
export const RECORD_SALT_AT = 72;
const SUM_AT = 96;
const CRC_AT = 124;

export function encodeRecordHeader(header: RecordHeader): Buffer {
  const bytes = Buffer.alloc(RECORD_HEADER_BYTES);
  MAGIC.copy(bytes, 0);
  bytes[4] = FORMAT_VERSION;
  bytes[5] = kinds.indexOf(header.kind) + 1;
  bytes[6] = codecs.indexOf(header.codec);
  bytes.writeUInt32LE(header.encryption?.keyId ?? 0, 8);
  bytes.writeUInt32LE(header.rawLength, 12);
  bytes.writeUInt32LE(header.storedLength, 16);
  bytes[20] = header.encryption ? CIPHER_AES_256_GCM : 0;
  bytes.write(header.restorePointId, 24, 16, 'hex');
  bytes.set(header.id, 40);
  if (header.encryption) bytes.set(header.encryption.salt, RECORD_SALT_AT);
  return withPayloadSum(bytes, header.payloadSum);
}

/** The same memory, with that sum of 16 bytes. */
export function withPayloadSum(header: Buffer, payloadSum: Uint8Array): Buffer {
  header.set(payloadSum, SUM_AT);
  header.writeUInt32LE(crcOf(header.subarray(0, CRC_AT)), CRC_AT);
  return header;
}

/** Undefined when cipher, key id and salt do not go together; null in the clear. */
function decodeEncryption(bytes: Buffer): RecordEncryption | null | undefined {
  const keyId = bytes.readUInt32LE(8);
  const salt = bytes.subarray(RECORD_SALT_AT, RECORD_SALT_AT + SALT_BYTES);
  if (bytes[20] === CIPHER_AES_256_GCM) return keyId === 0 ? undefined : { keyId, salt };
  return bytes[20] === 0 && keyId === 0 && isZero(salt) ? null : undefined;
}

/** The header at the start of `source`, or null when it is not a sound one of version 1. */
export function decodeRecordHeader(source: Uint8Array): RecordHeader | null {
  if (source.byteLength < RECORD_HEADER_BYTES) return null;
  const bytes = asBuffer(source).subarray(0, RECORD_HEADER_BYTES);
  if (bytes.compare(MAGIC, 0, 4, 0, 4) !== 0 || bytes.readUInt32LE(124) !== crcOf(bytes.subarray(0, 124))) return null;
  const kind = kinds[bytes[5]! - 1];
  const codec = codecs[bytes[6]!];
  const encryption = decodeEncryption(bytes);
  if (bytes[4] !== FORMAT_VERSION || !kind || !codec || bytes[7] !== 0 || encryption === undefined) return null;
  if (!isZero(bytes.subarray(21, 24)) || !isZero(bytes.subarray(112, 124))) return null;
  const header: RecordHeader = {
    kind,
    codec,
    rawLength: bytes.readUInt32LE(12),
    storedLength: bytes.readUInt32LE(16),
    restorePointId: bytes.toString('hex', 24, 40) as RestorePointId,
    id: bytes.subarray(40, 72),
    payloadSum: bytes.subarray(SUM_AT, SUM_AT + 16),
    ...(encryption && { encryption }),
  };
  return isSoundShape(header, encryption !== null) ? header : null;
}

/** Whether two headers are of the same bytes. */
export function isSameRecord(a: RecordHeader, b: RecordHeader): boolean {
  const ofPayload = (one: RecordHeader) => [one.kind, one.codec, one.rawLength, one.storedLength, one.restorePointId];
  return (
    Buffer.compare(a.id, b.id) === 0 &&
    Buffer.compare(a.payloadSum, b.payloadSum) === 0 &&
    ofPayload(a).join() === ofPayload(b).join()
  );
}

/** `pack`: 32 hex digits; `offset` of the header in it. */
export type RecordAt = { pack: string; offset: number };

/** DAMAGED_BLOCK, or TAMPERED, naming the record and where it lies; `why`, in the details too, follows a colon. */
export function recordError(
  code: Extract<ErrorCode, 'DAMAGED_BLOCK' | 'TAMPERED'>,
  id: Uint8Array,
  { pack, offset }: RecordAt,
  why: string,
): TidemarkError {
  const hex = asBuffer(id).toString('hex');
  return new TidemarkError(code, `block ${hex} in pack ${pack} at ${offset}: ${why}`, { id: hex, pack, offset, why });
}

/** One entry of the index, 56 bytes: where one record of an id lies. Packs by number; numbers little-endian, the last two bytes zero. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import { codecs } from '../../../schema/domain/states.ts';
import { DIGEST_BYTES } from '../../../schema/repository/limits.ts';

export const ENTRY_BYTES = 56;
const AT = { pack: 32, offset: 36, stored: 40, raw: 43, codec: 46, kind: 47, writer: 48 };
const WRITER_BYTES = 6;
const KINDS = ['block', 'page'] as const;
export type IndexKind = (typeof KINDS)[number];

/** `writer`: of the restore point that wrote the record, see `writerTagOf`. */
export type IndexEntry = { kind: IndexKind; place: RecordPlace; writer: number };
export type NewRecord = { id: Uint8Array; kind: IndexKind; place: RecordPlace; writer: RestorePointId };

/** What an entry keeps of its writer's id: 48 of its random bits. So no table of names is needed. */
export const writerTagOf = (writer: RestorePointId): number => parseInt(writer.slice(0, WRITER_BYTES * 2), 16);

export function encodeEntry(into: Buffer, base: number, record: NewRecord, pack: number): void {
  const { place } = record;
  into.set(record.id, base);
  into.writeUInt32LE(pack, base + AT.pack);
  into.writeUInt32LE(place.offset, base + AT.offset);
  into.writeUIntLE(place.storedLength, base + AT.stored, 3);
  into.writeUIntLE(place.rawLength, base + AT.raw, 3);
  into[base + AT.codec] = codecs.indexOf(place.codec);
  into[base + AT.kind] = KINDS.indexOf(record.kind);
  into.writeUIntLE(writerTagOf(record.writer), base + AT.writer, WRITER_BYTES);
}

/** `pack`: name of the entry's pack. */
export function decodeEntry(bytes: Buffer, base: number, pack: string): IndexEntry {
  const place: RecordPlace = {
    pack,
    offset: offsetAt(bytes, base),
    storedLength: bytes.readUIntLE(base + AT.stored, 3),
    rawLength: rawLengthAt(bytes, base),
    codec: codecs[bytes[base + AT.codec]!] ?? 'none',
  };
  const writer = bytes.readUIntLE(base + AT.writer, WRITER_BYTES);
  return { kind: KINDS[bytes[base + AT.kind]!] ?? 'block', place, writer };
}

export const packAt = (bytes: Buffer, base: number): number => bytes.readUInt32LE(base + AT.pack);
export const offsetAt = (bytes: Buffer, base: number): number => bytes.readUInt32LE(base + AT.offset);
export const rawLengthAt = (bytes: Buffer, base: number): number => bytes.readUIntLE(base + AT.raw, 3);
export const isPageAt = (bytes: Buffer, base: number): boolean => bytes[base + AT.kind] === KINDS.indexOf('page');

/** The first bytes of an id, in whose order ids are. */
export const prefixAt = (id: Uint8Array, base: number): number =>
  ((id[base]! << 24) | (id[base + 1]! << 16) | (id[base + 2]! << 8) | id[base + 3]!) >>> 0;

/** Whether the entry is one of `id`. */
export function hasId(bytes: Buffer, base: number, id: Uint8Array): boolean {
  // From the end, where neighbours differ. Byte by byte: a call of `compare` takes several times as long.
  for (let at = DIGEST_BYTES - 1; at >= 0; at -= 1) if (bytes[base + at] !== id[at]) return false;
  return true;
}

/** By id: negative, zero or positive. */
export const compareIds = (a: Buffer, aBase: number, b: Buffer, bBase: number): number =>
  a.compare(b, bBase, bBase + DIGEST_BYTES, aBase, aBase + DIGEST_BYTES);

/** Asked of each entry of an id, the older first; true: no more of them. */
export type SeeEntry = (bytes: Buffer, base: number) => boolean;

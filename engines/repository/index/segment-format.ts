/**
 * A segment's file: pages of 1 KiB with entries sorted by id (of one id the older first), then what is held in memory of
 * it, then a trailer. Numbers little-endian; every part has a crc, into which the segment's salt goes, so that parts of
 * another file or another time do not pass.
 *
 *     page     crc of the rest (4), count of entries (4), 18 entries of 56 bytes, zero (8)
 *     tail     first 4 bytes of each page's first id as a number (4 each); Bloom filter; entries per pack: number (4), count (4)
 *     trailer  magic (4), version (4), salt (4), counts of entries, pages (4, 4), bytes of the filter (4), packs (4),
 *              crc of the tail (4), crc of this (4)
 */
import { crcOf } from '../../../schema/repository/digest.ts';
import { BloomFilter } from './bloom-filter.ts';
import { ENTRY_BYTES } from './entry.ts';

/** Of everything in the index's folder: another one is not read, but made anew from the packs. */
export const INDEX_VERSION = 2;
export const PAGE_BYTES = 1024;
export const PAGE_HEADER_BYTES = 8;
export const ENTRIES_PER_PAGE = Math.floor((PAGE_BYTES - PAGE_HEADER_BYTES) / ENTRY_BYTES);
export const TRAILER_BYTES = 36;
const MAGIC = Buffer.from('TMIX');

/** Of all of a page but the crc itself; of its own place. */
const pageCrc = (rest: Buffer, salt: number, number: number): number => crcOf(rest, (salt + number) >>> 0);

export function sealPage(page: Buffer, count: number, salt: number, number: number): void {
  page.fill(0, PAGE_HEADER_BYTES + count * ENTRY_BYTES);
  page.writeUInt32LE(count, 4);
  page.writeUInt32LE(pageCrc(page.subarray(4), salt, number), 0);
}

/** Count of its entries, or null when it is damaged. `rest`: the page from its fifth byte on. */
export function checkedPage(page: Buffer, rest: Buffer, salt: number, number: number): number | null {
  const count = page.readUInt32LE(4);
  return page.readUInt32LE(0) === pageCrc(rest, salt, number) && count <= ENTRIES_PER_PAGE ? count : null;
}

/** Entries per pack number, numbers ascending. */
export type PackCounts = { numbers: Uint32Array; counts: Uint32Array };
/** What is held in memory of a segment. */
export type SegmentTail = { entryCount: number; fences: Uint32Array; filter: BloomFilter; packs: PackCounts };

/** Tail and trailer. */
export function encodeTail({ entryCount, fences, filter, packs }: SegmentTail, salt: number): Buffer {
  const parts = [fences, filter.bytes, packs.numbers, packs.counts];
  const tail = Buffer.concat(parts.map((part) => Buffer.from(part.buffer, part.byteOffset, part.byteLength)));
  const trailer = Buffer.alloc(TRAILER_BYTES);
  MAGIC.copy(trailer);
  const fields = [INDEX_VERSION, salt, entryCount, fences.length, filter.bytes.byteLength, packs.numbers.length];
  for (const [at, field] of [...fields, crcOf(tail, salt)].entries()) trailer.writeUInt32LE(field, 4 + at * 4);
  trailer.writeUInt32LE(crcOf(trailer.subarray(0, -4)), TRAILER_BYTES - 4);
  return Buffer.concat([tail, trailer]);
}

/** Bytes of the tail, by the trailer of a file of `fileBytes`. Throws when it is not one of this salt. */
export function tailBytesOf(trailer: Buffer, salt: number, fileBytes: number): number {
  const isSound =
    trailer.compare(MAGIC, 0, 4, 0, 4) === 0 &&
    trailer.readUInt32LE(TRAILER_BYTES - 4) === crcOf(trailer.subarray(0, -4));
  if (!isSound || trailer.readUInt32LE(4) !== INDEX_VERSION || trailer.readUInt32LE(8) !== salt)
    throw new Error('it does not end as it should');
  const { pageCount, filterBytes, packCount } = fieldsOf(trailer);
  const tailBytes = pageCount * 4 + filterBytes + packCount * 8;
  if (pageCount * PAGE_BYTES + tailBytes + TRAILER_BYTES !== fileBytes)
    throw new Error('it has not the length it should have');
  return tailBytes;
}

/** `tail`: at a multiple of 4 in its memory, which is kept. Throws when it is damaged. */
export function decodeTail(tail: Buffer, trailer: Buffer): SegmentTail {
  const { salt, entryCount, pageCount, filterBytes, packCount, tailCrc } = fieldsOf(trailer);
  if (crcOf(tail, salt) !== tailCrc) throw new Error('its tail is damaged');
  const numbersAt = (at: number, count: number): Uint32Array =>
    new Uint32Array(tail.buffer, tail.byteOffset + at, count);
  const packsAt = pageCount * 4 + filterBytes;
  return {
    entryCount,
    fences: numbersAt(0, pageCount),
    filter: new BloomFilter(tail.subarray(pageCount * 4, packsAt)),
    packs: { numbers: numbersAt(packsAt, packCount), counts: numbersAt(packsAt + packCount * 4, packCount) },
  };
}

function fieldsOf(trailer: Buffer) {
  const [salt, entryCount, pageCount, filterBytes, packCount, tailCrc] = [8, 12, 16, 20, 24, 28].map((at) =>
    trailer.readUInt32LE(at),
  ) as [number, number, number, number, number, number];
  return { salt, entryCount, pageCount, filterBytes, packCount, tailCrc };
}

/** A sorted file of entries that never changes; one page of it is read per id that its filter does not rule out. */
import type { BloomFilter } from './bloom-filter.ts';
import { ENTRY_BYTES, hasId, prefixAt, type SeeEntry } from './entry.ts';
import type { IndexFile, IndexFolder } from './index-folder.ts';
import { lowerBound, lowerBoundOfEven } from './lower-bound.ts';
import {
  checkedPage,
  decodeTail,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  tailBytesOf,
  TRAILER_BYTES,
  type PackCounts,
  type SegmentTail,
} from './segment-format.ts';

/** What the manifest says of a segment. `salt`: random, 32 bits; in every checksum of its file. */
export type SegmentRef = { number: number; salt: number };

export const segmentName = ({ number }: SegmentRef): string => `segment-${number}`;

/** A segment cannot be read, or is not what was written. */
export class SegmentDamaged extends Error {}

/** SegmentDamaged: it is missing, damaged or another one. */
export async function openSegment(folder: IndexFolder, ref: SegmentRef): Promise<Segment> {
  let file: IndexFile | null = null;
  try {
    file = await folder.open(segmentName(ref));
    return new Segment(ref, file, await readTail(file, ref));
  } catch (error) {
    await file?.close();
    throw damaged(ref, error);
  }
}

async function readTail(file: IndexFile, { salt }: SegmentRef): Promise<SegmentTail> {
  if (file.sizeBytes < TRAILER_BYTES) throw new Error('it is cut short');
  const trailer = Buffer.alloc(TRAILER_BYTES);
  const tailEnd = file.sizeBytes - TRAILER_BYTES;
  await file.read(trailer, tailEnd);
  const tail = Buffer.from(new ArrayBuffer(tailBytesOf(trailer, salt, file.sizeBytes)));
  await file.read(tail, tailEnd - tail.byteLength);
  return decodeTail(tail, trailer);
}

const damaged = (ref: SegmentRef, cause: unknown): SegmentDamaged =>
  new SegmentDamaged(`${segmentName(ref)}: ${String(cause)}`, { cause });

export class Segment {
  readonly ref: SegmentRef;
  readonly entryCount: number;
  readonly sizeBytes: number;
  readonly filter: BloomFilter;
  /** Entries of packs that are gone. */
  deadCount = 0;
  readonly #packs: PackCounts;
  readonly #fences: Uint32Array;
  readonly #file: IndexFile;
  /** The page looked at last. */
  readonly #page = Buffer.alloc(PAGE_BYTES);
  readonly #pageRest = this.#page.subarray(4);
  #pageNumber = -1;
  #pageEntries = 0;
  #users = 1;

  constructor(ref: SegmentRef, file: IndexFile, tail: SegmentTail) {
    this.ref = ref;
    this.entryCount = tail.entryCount;
    this.sizeBytes = file.sizeBytes;
    this.filter = tail.filter;
    this.#fences = tail.fences;
    this.#packs = tail.packs;
    this.#file = file;
  }

  get pageCount(): number {
    return this.#fences.length;
  }

  /** True when `see` said so of an entry of this id. SegmentDamaged. */
  visit(id: Uint8Array, see: SeeEntry): boolean {
    const prefix = prefixAt(id, 0);
    // The page before the first one that begins with such an id or a greater one may end with such ids.
    for (let number = Math.max(0, this.#firstFenceFrom(prefix) - 1); number < this.pageCount; number += 1) {
      if (this.#fences[number]! > prefix) return false;
      this.#load(number);
      if (this.#visitPage(id, prefix, see)) return true;
    }
    return false;
  }

  /** `count` pages from `first` on: their entries, without gaps, in `into` from its start. Bytes of them. SegmentDamaged. */
  async readEntries(first: number, count: number, into: Buffer): Promise<number> {
    await this.#file.read(into.subarray(0, count * PAGE_BYTES), first * PAGE_BYTES).catch((error: unknown) => {
      throw damaged(this.ref, error);
    });
    let lengthBytes = 0;
    for (let at = 0; at < count; at += 1) {
      const page = into.subarray(at * PAGE_BYTES, (at + 1) * PAGE_BYTES);
      const pageBytes = this.#check(page, page.subarray(4), first + at) * ENTRY_BYTES;
      page.copy(into, lengthBytes, PAGE_HEADER_BYTES, PAGE_HEADER_BYTES + pageBytes);
      lengthBytes += pageBytes;
    }
    return lengthBytes;
  }

  /** Of which packs it has entries, and how many. */
  *packs(): Iterable<[number: number, count: number]> {
    for (const [at, number] of this.#packs.numbers.entries()) yield [number, this.#packs.counts[at]!];
  }

  countOfPack(pack: number): number {
    const at = lowerBound(this.#packs.numbers, pack);
    return this.#packs.numbers[at] === pack ? this.#packs.counts[at]! : 0;
  }

  /** Its file stays open until as many have released it as have retained it, and its owner. */
  retain(): void {
    this.#users += 1;
  }

  async release(): Promise<void> {
    this.#users -= 1;
    if (this.#users === 0) await this.#file.close();
  }

  #firstFenceFrom(prefix: number): number {
    return lowerBoundOfEven(this.#fences, prefix);
  }

  #load(number: number): void {
    if (this.#pageNumber === number) return;
    this.#pageNumber = -1;
    try {
      this.#file.readSync(this.#page, number * PAGE_BYTES);
    } catch (error) {
      throw damaged(this.ref, error);
    }
    this.#pageEntries = this.#check(this.#page, this.#pageRest, number);
    this.#pageNumber = number;
  }

  #check(page: Buffer, rest: Buffer, number: number): number {
    const count = checkedPage(page, rest, this.ref.salt, number);
    if (count === null) throw damaged(this.ref, `page ${number} is damaged`);
    return count;
  }

  #visitPage(id: Uint8Array, prefix: number, see: SeeEntry): boolean {
    let low = 0;
    let high = this.#pageEntries;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (prefixAt(this.#page, baseOf(middle)) < prefix) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < this.#pageEntries; at += 1) {
      const base = baseOf(at);
      if (prefixAt(this.#page, base) !== prefix) return false;
      if (hasId(this.#page, base, id) && see(this.#page, base)) return true;
    }
    return false;
  }
}

const baseOf = (at: number): number => PAGE_HEADER_BYTES + at * ENTRY_BYTES;

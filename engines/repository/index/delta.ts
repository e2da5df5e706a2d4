/**
 * Entries that are in no segment yet, in memory: 56 bytes each and at most 16 for a slot of an open-addressing table.
 * Ids are digests, so their first bytes are the hash. Entries are only ever added; each place once.
 */
import { DIGEST_BYTES } from '../../../schema/repository/limits.ts';
import {
  compareIds,
  encodeEntry,
  ENTRY_BYTES,
  hasId,
  offsetAt,
  packAt,
  prefixAt,
  type NewRecord,
  type SeeEntry,
} from './entry.ts';

const CHUNK_ENTRIES = 16_384;
/** As many as a double can tell beside a prefix of 32 bits. */
const PLACES = 2 ** 21;

export class Delta {
  readonly #chunks: Buffer[] = [];
  #count = 0;
  /** Entry number + 1, or 0. A power of two, never over half full. */
  #table = new Int32Array(1024);

  get count(): number {
    return this.#count;
  }

  /** Nothing when that very place is known. */
  add(record: NewRecord, pack: number): void {
    this.#fit();
    const { id, place } = record;
    const isKnown = (bytes: Buffer, base: number): boolean =>
      packAt(bytes, base) === pack && offsetAt(bytes, base) === place.offset;
    if (this.visit(id, isKnown)) return;
    const [chunk, base] = this.#append(this.#freeSlotOf(id, 0));
    encodeEntry(chunk, base, record, pack);
  }

  /** True when `see` said so of an entry of this id. */
  visit(id: Uint8Array, see: SeeEntry): boolean {
    const mask = this.#table.length - 1;
    for (let slot = hashAt(id, 0) & mask; ; slot = (slot + 1) & mask) {
      const number = this.#table[slot]! - 1;
      if (number < 0) return false;
      const chunk = this.chunkOf(number);
      const base = this.baseOf(number);
      if (hasId(chunk, base, id) && see(chunk, base)) return true;
    }
  }

  /** Puts the numbers `from ... to - 1`, of those whose packs are asked for, where their ids' first bits say. */
  deal(from: number, to: number, ofPack: (pack: number) => boolean, buckets: number[][]): void {
    const shift = 32 - Math.log2(buckets.length);
    for (let number = from; number < to; number += 1) {
      const chunk = this.chunkOf(number);
      const base = this.baseOf(number);
      if (ofPack(packAt(chunk, base))) buckets[prefixAt(chunk, base) >>> shift]!.push(number);
    }
  }

  /** Sorts numbers, which ascend, by id: of one id the older stays first. */
  order(numbers: readonly number[]): Uint32Array {
    const keys = new Float64Array(numbers.length);
    for (let at = 0; at < numbers.length; at += 1)
      keys[at] = prefixAt(this.chunkOf(numbers[at]!), this.baseOf(numbers[at]!)) * PLACES + at;
    keys.sort();
    const ordered = new Uint32Array(numbers.length);
    let lastPrefix = -1;
    for (let at = 0; at < keys.length; at += 1) {
      const prefix = Math.floor(keys[at]! / PLACES);
      const number = numbers[keys[at]! - prefix * PLACES]!;
      if (prefix === lastPrefix) this.#insert(ordered, at, number);
      else ordered[at] = number;
      lastPrefix = prefix;
    }
    return ordered;
  }

  /** Adds the entries `from ... to - 1` of another one, of those whose packs are asked for. */
  addFrom(other: Delta, from: number, to: number, ofPack: (pack: number) => boolean): void {
    for (let number = from; number < to; number += 1) {
      const chunk = other.chunkOf(number);
      const base = other.baseOf(number);
      if (ofPack(packAt(chunk, base))) this.#take(chunk, base);
    }
  }

  countOf(ofPack: (pack: number) => boolean): number {
    let count = 0;
    for (let number = 0; number < this.#count; number += 1)
      if (ofPack(packAt(this.chunkOf(number), this.baseOf(number)))) count += 1;
    return count;
  }

  chunkOf(number: number): Buffer {
    return this.#chunks[Math.floor(number / CHUNK_ENTRIES)]!;
  }

  baseOf(number: number): number {
    return (number % CHUNK_ENTRIES) * ENTRY_BYTES;
  }

  #take(bytes: Buffer, base: number): void {
    this.#fit();
    const [chunk, to] = this.#append(this.#freeSlotOf(bytes, base));
    bytes.copy(chunk, to, base, base + ENTRY_BYTES);
  }

  #append(slot: number): [Buffer, number] {
    if (this.#count === this.#chunks.length * CHUNK_ENTRIES)
      this.#chunks.push(Buffer.alloc(CHUNK_ENTRIES * ENTRY_BYTES));
    this.#table[slot] = this.#count + 1;
    const number = this.#count++;
    return [this.chunkOf(number), this.baseOf(number)];
  }

  #freeSlotOf(id: Uint8Array, base: number): number {
    const mask = this.#table.length - 1;
    let slot = hashAt(id, base) & mask;
    while (this.#table[slot] !== 0) slot = (slot + 1) & mask;
    return slot;
  }

  #fit(): void {
    if ((this.#count + 1) * 2 <= this.#table.length) return;
    this.#table = new Int32Array(this.#table.length * 2);
    // In the order in which they came: a probe meets the older of an id first.
    for (let number = 0; number < this.#count; number += 1)
      this.#table[this.#freeSlotOf(this.chunkOf(number), this.baseOf(number))] = number + 1;
  }

  /** Among the `count` before it, of which the last begin alike. */
  #insert(ordered: Uint32Array, count: number, number: number): void {
    let to = count;
    for (; to > 0 && this.#isBehind(ordered[to - 1]!, number); to -= 1) ordered[to] = ordered[to - 1]!;
    ordered[to] = number;
  }

  #isBehind(a: number, b: number): boolean {
    return compareIds(this.chunkOf(a), this.baseOf(a), this.chunkOf(b), this.baseOf(b)) > 0;
  }
}

const HASH_AT = DIGEST_BYTES - 8;
/** Of other bytes than the prefix, so that a table filled in id order does not fill in clusters. */
const hashAt = (id: Uint8Array, base: number): number =>
  id[base + HASH_AT]! |
  (id[base + HASH_AT + 1]! << 8) |
  (id[base + HASH_AT + 2]! << 16) |
  (id[base + HASH_AT + 3]! << 24);

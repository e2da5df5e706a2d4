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

/** The ids whose first `bits` bits are `index`. */
export type DeltaPart = { bits: number; index: number };

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

  /**
   * Numbers of the entries of one part of all ids, by id; of one id the older first. Of the first `count` entries, those
   * whose packs are asked for. In parts, so that no single call takes long.
   */
  orderOfPart(part: DeltaPart, count: number, ofPack: (pack: number) => boolean): Uint32Array {
    const restBits = 32 - part.bits;
    const room = 2 ** (53 - restBits);
    const keys: number[] = [];
    for (let number = 0; number < count; number += 1) {
      const chunk = this.chunkOf(number);
      const base = this.baseOf(number);
      const prefix = prefixAt(chunk, base);
      const partOfId = Math.floor(prefix / 2 ** restBits);
      if (partOfId !== part.index || !ofPack(packAt(chunk, base))) continue;
      keys.push((prefix - partOfId * 2 ** restBits) * room + number);
    }
    const sorted = Float64Array.from(keys).sort();
    const numbers = Uint32Array.from(sorted, (key) => key % room);
    this.#settleTies(numbers);
    return numbers;
  }

  /** The entries whose packs are asked for. */
  only(ofPack: (pack: number) => boolean): Delta {
    const kept = new Delta();
    for (let number = 0; number < this.#count; number += 1) {
      const chunk = this.chunkOf(number);
      const base = this.baseOf(number);
      if (ofPack(packAt(chunk, base))) kept.#take(chunk, base);
    }
    return kept;
  }

  countOf(ofPack: (pack: number) => boolean): number {
    let count = 0;
    for (let number = 0; number < this.#count; number += 1)
      if (ofPack(packAt(this.chunkOf(number), this.baseOf(number)))) count += 1;
    return count;
  }

  chunkOf = (number: number): Buffer => this.#chunks[Math.floor(number / CHUNK_ENTRIES)]!;
  baseOf = (number: number): number => (number % CHUNK_ENTRIES) * ENTRY_BYTES;

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

  /** Sorted by prefix: few are out of place, and not far. */
  #settleTies(numbers: Uint32Array): void {
    for (let at = 1; at < numbers.length; at += 1) {
      const number = numbers[at]!;
      let to = at;
      while (to > 0 && this.#isBehind(numbers[to - 1]!, number)) {
        numbers[to] = numbers[to - 1]!;
        to -= 1;
      }
      numbers[to] = number;
    }
  }

  #isBehind(a: number, b: number): boolean {
    const [bytesA, baseA] = [this.chunkOf(a), this.baseOf(a)];
    const [bytesB, baseB] = [this.chunkOf(b), this.baseOf(b)];
    const difference = prefixAt(bytesA, baseA) - prefixAt(bytesB, baseB);
    return difference !== 0 ? difference > 0 : compareIds(bytesA, baseA, bytesB, baseB) > 0;
  }
}

const HASH_AT = DIGEST_BYTES - 8;
/** Of other bytes than the prefix, so that a table filled in id order does not fill in clusters. */
const hashAt = (id: Uint8Array, base: number): number =>
  id[base + HASH_AT]! |
  (id[base + HASH_AT + 1]! << 8) |
  (id[base + HASH_AT + 2]! << 16) |
  (id[base + HASH_AT + 3]! << 24);

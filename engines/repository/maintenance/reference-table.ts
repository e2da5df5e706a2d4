/**
 * Who refers to what, in flat memory: per key (the first 64 bits of a digest; among ten million two are alike with a
 * probability of 3 in a million) a few numbers. A key of zeros is taken for the one next to it.
 */
const KEY_WORDS = 2;

export class ReferenceTable {
  readonly #width: number;
  /** Key, then `width` numbers; key 0: free. A power of two of slots, never over two thirds full. */
  #words: Uint32Array;
  #sums: Float64Array | null;
  #slotCount = 1024;
  #count = 0;

  /** `width`: numbers per key, below 2^32; `withSums`: and two that may be greater. */
  constructor(width: number, withSums = false) {
    this.#width = width;
    this.#words = new Uint32Array(this.#slotCount * (KEY_WORDS + width));
    this.#sums = withSums ? new Float64Array(this.#slotCount * 2) : null;
  }

  get count(): number {
    return this.#count;
  }

  /** Its slot, valid until the next `add`; -1: not there. */
  find(high: number, low: number): number {
    const slot = this.#probe(high, low || 1);
    return this.#words[slot * (KEY_WORDS + this.#width) + 1] === 0 ? -1 : slot;
  }

  /** Of one that is not there: its slot, all numbers 0. */
  add(high: number, low: number): number {
    if (this.#count * 3 >= this.#slotCount * 2) this.#grow();
    this.#count += 1;
    const slot = this.#probe(high, low || 1);
    this.#words.set([high, low || 1], slot * (KEY_WORDS + this.#width));
    return slot;
  }

  get(slot: number, field: number): number {
    return this.#words[slot * (KEY_WORDS + this.#width) + KEY_WORDS + field]!;
  }

  set(slot: number, field: number, value: number): void {
    this.#words[slot * (KEY_WORDS + this.#width) + KEY_WORDS + field] = value;
  }

  sumsOf(slot: number): [number, number] {
    return [this.#sums![slot * 2]!, this.#sums![slot * 2 + 1]!];
  }

  setSums(slot: number, sums: readonly [number, number]): void {
    this.#sums!.set(sums, slot * 2);
  }

  #probe(high: number, low: number): number {
    const stride = KEY_WORDS + this.#width;
    const mask = this.#slotCount - 1;
    for (let slot = high & mask; ; slot = (slot + 1) & mask) {
      const at = slot * stride;
      if (this.#words[at + 1] === 0 || (this.#words[at] === high && this.#words[at + 1] === low)) return slot;
    }
  }

  #grow(): void {
    const [words, sums, slotCount] = [this.#words, this.#sums, this.#slotCount];
    const stride = KEY_WORDS + this.#width;
    this.#slotCount *= 2;
    this.#words = new Uint32Array(this.#slotCount * stride);
    if (sums) this.#sums = new Float64Array(this.#slotCount * 2);
    for (let slot = 0; slot < slotCount; slot += 1) {
      const at = slot * stride;
      if (words[at + 1] === 0) continue;
      const to = this.#probe(words[at]!, words[at + 1]!);
      this.#words.set(words.subarray(at, at + stride), to * stride);
      if (sums) this.#sums!.set(sums.subarray(slot * 2, slot * 2 + 2), to * 2);
    }
  }
}

/** The two words of a digest that are its key. */
export function keyOfDigest(digest: Uint8Array): [number, number] {
  const view = new DataView(digest.buffer, digest.byteOffset, 8);
  return [view.getUint32(0), view.getUint32(4)];
}

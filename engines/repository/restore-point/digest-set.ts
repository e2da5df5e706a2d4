/**
 * Digests, of each the first 64 bits: for counting. Among ten million there are two alike in these bits with a
 * probability of 3 in a million.
 */
export class DigestSet {
  /** Two words per slot, both 0: free. A power of two of slots, never over half full. */
  #words = new Uint32Array(2 * 1024);
  #count = 0;

  /** Whether it was not there yet. */
  add(digest: Uint8Array): boolean {
    const words = wordsOf(digest);
    if (this.#count * 4 >= this.#words.length) this.#grow();
    if (!this.#put(words[0], words[1])) return false;
    this.#count += 1;
    return true;
  }

  has(digest: Uint8Array): boolean {
    const words = wordsOf(digest);
    const slot = this.#slotOf(words[0], words[1]);
    return this.#words[slot * 2] !== 0 || this.#words[slot * 2 + 1] !== 0;
  }

  /** Where it is, or where it would go. */
  #slotOf(first: number, second: number): number {
    const mask = this.#words.length / 2 - 1;
    for (let slot = first & mask; ; slot = (slot + 1) & mask) {
      const [a, b] = [this.#words[slot * 2]!, this.#words[slot * 2 + 1]!];
      if ((a === first && b === second) || (a === 0 && b === 0)) return slot;
    }
  }

  #put(first: number, second: number): boolean {
    const slot = this.#slotOf(first, second);
    if (this.#words[slot * 2] !== 0 || this.#words[slot * 2 + 1] !== 0) return false;
    this.#words[slot * 2] = first;
    this.#words[slot * 2 + 1] = second;
    return true;
  }

  #grow(): void {
    const words = this.#words;
    this.#words = new Uint32Array(words.length * 2);
    for (let at = 0; at < words.length; at += 2)
      if (words[at] !== 0 || words[at + 1] !== 0) this.#put(words[at]!, words[at + 1]!);
  }
}

/** Not both 0: that is a free slot. */
function wordsOf(digest: Uint8Array): [number, number] {
  const view = new DataView(digest.buffer, digest.byteOffset, 8);
  return [view.getUint32(0), view.getUint32(4) || 1];
}

/** Map pages that were seen, by the first 128 bits of their digests: as good as the digests, since nobody finds two alike. */
const WORDS = 4;

export class PageSet {
  /** Four words per slot, all 0: free. A power of two of slots, never over half full. */
  #words = new Uint32Array(WORDS * 1024);
  #count = 0;

  /** Whether it was not there yet. */
  add(digest: Uint8Array): boolean {
    if (this.#count * 2 * WORDS >= this.#words.length) this.#grow();
    const view = new DataView(digest.buffer, digest.byteOffset, WORDS * 4);
    const isNew = this.#put(view.getUint32(0), view.getUint32(4), view.getUint32(8), view.getUint32(12) || 1);
    if (isNew) this.#count += 1;
    return isNew;
  }

  #put(a: number, b: number, c: number, d: number): boolean {
    const words = this.#words;
    const mask = words.length / WORDS - 1;
    for (let slot = a & mask; ; slot = (slot + 1) & mask) {
      const at = slot * WORDS;
      if (words[at + 3] === 0) {
        words.set([a, b, c, d], at);
        return true;
      }
      if (words[at] === a && words[at + 1] === b && words[at + 2] === c && words[at + 3] === d) return false;
    }
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += WORDS)
      if (old[at + 3] !== 0) this.#put(old[at]!, old[at + 1]!, old[at + 2]!, old[at + 3]!);
  }
}

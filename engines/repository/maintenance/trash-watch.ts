/**
 * Records that lie in the trash and nowhere else: while living ids are marked it is seen whether one of them is needed
 * after all. By the first 64 bits of an id: two alike bring a pack back that nobody needs, no more.
 */
const WORDS = 3;

export class TrashWatch {
  /** First and second word of the id, and number of the pack + 1; 0: free. A power of two of slots, never over half full. */
  #words = new Uint32Array(WORDS * 1024);
  #count = 0;
  readonly #needed = new Set<number>();

  get count(): number {
    return this.#count;
  }

  /** Numbers of packs of which something was marked. */
  get needed(): ReadonlySet<number> {
    return this.#needed;
  }

  add(id: Uint8Array, pack: number): void {
    if (this.#count * 2 * WORDS >= this.#words.length) this.#grow();
    this.#put(...wordsOf(id), pack + 1);
    this.#count += 1;
  }

  /** Called for each living id. */
  mark(id: Uint8Array): void {
    if (this.#count === 0) return;
    const words = this.#words;
    const mask = words.length / WORDS - 1;
    const [first, second] = wordsOf(id);
    for (let slot = first & mask; words[slot * WORDS + 2] !== 0; slot = (slot + 1) & mask) {
      const at = slot * WORDS;
      if (words[at] === first && words[at + 1] === second) this.#needed.add(words[at + 2]! - 1);
    }
  }

  #put(first: number, second: number, pack: number): void {
    const words = this.#words;
    const mask = words.length / WORDS - 1;
    let slot = first & mask;
    while (words[slot * WORDS + 2] !== 0) slot = (slot + 1) & mask;
    words.set([first, second, pack], slot * WORDS);
  }

  #grow(): void {
    const old = this.#words;
    this.#words = new Uint32Array(old.length * 2);
    for (let at = 0; at < old.length; at += WORDS)
      if (old[at + 2] !== 0) this.#put(old[at]!, old[at + 1]!, old[at + 2]!);
  }
}

function wordsOf(id: Uint8Array): [number, number] {
  const view = new DataView(id.buffer, id.byteOffset, 8);
  return [view.getUint32(0), view.getUint32(4)];
}

/**
 * Tells most ids that are not in a segment without reading it. Blocks of 256 bits, one of each of their 8 words set per
 * id: one place in memory per question. With 12 bits per entry about one absent id in 200 is not told.
 */
const BITS_PER_ENTRY = 12;
const BLOCK_WORDS = 8;
const BLOCK_BYTES = BLOCK_WORDS * 4;
/** Bytes of an id that choose block and bits: not those by which segments are sorted. */
const AT = { block: 4, bits: 8, moreBits: 12 };
/** Words of a block whose bits `bits` chooses, 5 bits each; `moreBits` those of the other two. */
const WORDS_PER_HASH = 6;

export class BloomFilter {
  /** As it lies in the segment's file (little-endian, as every machine we run on). */
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  /** Times 32 random bits: a block. */
  readonly #blocksPerUnit: number;

  /** `bytes`: a whole number of blocks, starting at a multiple of 4 in its memory. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#blocksPerUnit = bytes.byteLength / BLOCK_BYTES / 2 ** 32;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  static bytesFor(entryCount: number): number {
    return Math.ceil(Math.max(1, entryCount) * (BITS_PER_ENTRY / (BLOCK_BYTES * 8))) * BLOCK_BYTES;
  }

  add(id: Buffer, base: number): void {
    const at = this.#wordOf(wordAt(id, base + AT.block));
    const words = this.#words;
    let bits = wordAt(id, base + AT.bits);
    for (let word = at; word < at + WORDS_PER_HASH; word += 1, bits >>>= 5) words[word]! |= 1 << (bits & 31);
    bits = wordAt(id, base + AT.moreBits);
    words[at + 6]! |= 1 << (bits & 31);
    words[at + 7]! |= 1 << ((bits >>> 5) & 31);
  }

  mayHold({ block, bits, moreBits }: FilterKey): boolean {
    const at = this.#wordOf(block);
    const words = this.#words;
    for (let word = at, rest = bits; word < at + WORDS_PER_HASH; word += 1, rest >>>= 5)
      if (((words[word]! >>> (rest & 31)) & 1) === 0) return false;
    return ((words[at + 6]! >>> (moreBits & 31)) & (words[at + 7]! >>> ((moreBits >>> 5) & 31)) & 1) === 1;
  }

  #wordOf(block: number): number {
    return Math.floor((block >>> 0) * this.#blocksPerUnit) * BLOCK_WORDS;
  }
}

/** What a filter looks at of an id. */
export type FilterKey = { block: number; bits: number; moreBits: number };

export const filterKeyOf = (id: Uint8Array): FilterKey => ({
  block: wordAt(id, AT.block),
  bits: wordAt(id, AT.bits),
  moreBits: wordAt(id, AT.moreBits),
});

const wordAt = (id: Uint8Array, at: number): number =>
  id[at]! | (id[at + 1]! << 8) | (id[at + 2]! << 16) | (id[at + 3]! << 24);

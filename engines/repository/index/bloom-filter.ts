/**
 * Tells most ids that are not in a segment without reading it. Blocks of 256 bits, one of each of their 8 words set per
 * id: one place in memory per question. With 12 bits per entry about one absent id in 200 is not told.
 */
const BITS_PER_ENTRY = 12;
const BLOCK_WORDS = 8;
const BLOCK_BYTES = BLOCK_WORDS * 4;
/** Bytes of an id that choose block and bits: not those by which segments are sorted. */
const AT = { block: 4, bits: 8, moreBits: 12 };
/** Words whose bits the first four bytes choose, 5 bits each. */
const WORDS_PER_HASH = 6;

export class BloomFilter {
  /** As it lies in the segment's file (little-endian, as every machine we run on). */
  readonly bytes: Buffer;
  readonly #words: Uint32Array;
  readonly #blockCount: number;

  /** `bytes`: a whole number of blocks, starting at a multiple of 4 in its memory. */
  constructor(bytes: Buffer) {
    this.bytes = bytes;
    this.#blockCount = bytes.byteLength / BLOCK_BYTES;
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  }

  static bytesFor(entryCount: number): number {
    return Math.ceil(Math.max(1, entryCount) * (BITS_PER_ENTRY / (BLOCK_BYTES * 8))) * BLOCK_BYTES;
  }

  add(id: Buffer, base: number): void {
    const at = this.#blockAt(id, base);
    let bits = wordAt(id, base + AT.bits);
    for (let word = 0; word < BLOCK_WORDS; word += 1) {
      if (word === WORDS_PER_HASH) bits = wordAt(id, base + AT.moreBits);
      this.#words[at + word]! |= 1 << (bits & 31);
      bits >>>= 5;
    }
  }

  mayHold(id: Uint8Array): boolean {
    const at = this.#blockAt(id, 0);
    let bits = wordAt(id, AT.bits);
    for (let word = 0; word < BLOCK_WORDS; word += 1) {
      if (word === WORDS_PER_HASH) bits = wordAt(id, AT.moreBits);
      if ((this.#words[at + word]! & (1 << (bits & 31))) === 0) return false;
      bits >>>= 5;
    }
    return true;
  }

  #blockAt(id: Uint8Array, base: number): number {
    return Math.floor(((wordAt(id, base + AT.block) >>> 0) / 2 ** 32) * this.#blockCount) * BLOCK_WORDS;
  }
}

const wordAt = (id: Uint8Array, at: number): number =>
  id[at]! | (id[at + 1]! << 8) | (id[at + 2]! << 16) | (id[at + 3]! << 24);

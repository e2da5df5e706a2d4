/**
 * Which ids are living, in flat memory: a Bloom filter of blocks of 512 bits, eight of them set per id. It never denies
 * one that was added; of others it takes about one in a thousand for living. Which, depends on the seed: what one
 * collection takes for living by mistake the next, with another seed, finds dead.
 */
const BITS_PER_ID = 16;
const BLOCK_BITS = 512;
const BLOCK_WORDS = BLOCK_BITS / 32;
const FIELD_BITS = 9;
const FIELD_MASK = BLOCK_BITS - 1;
/** Where in an id (a digest: its bytes are as good as random) each hash starts. */
const WORDS = { block: 0, bits: [8, 16, 24] } as const;
/** Bits that each of the three words of `bits` chooses: eight in all. */
const FIELDS = [3, 3, 2] as const;

export class LiveFilter {
  readonly #words: Uint32Array;
  readonly #blockCount: number;
  readonly #seed: number;

  /** `capacity`: ids that will be added at most; with more of them it errs more often, on the safe side. */
  constructor(capacity: number, seed: number) {
    this.#blockCount = Math.max(1, Math.ceil((capacity * BITS_PER_ID) / BLOCK_BITS));
    this.#words = new Uint32Array(this.#blockCount * BLOCK_WORDS);
    this.#seed = mixed(seed ^ 0x2545f491);
  }

  add(id: Uint8Array): void {
    const base = this.#blockOf(id);
    for (const [at, start] of WORDS.bits.entries()) {
      let hash = this.#hashAt(id, start);
      for (let field = 0; field < FIELDS[at]!; field += 1) {
        const bit = hash & FIELD_MASK;
        this.#words[base + (bit >>> 5)]! |= 1 << (bit & 31);
        hash >>>= FIELD_BITS;
      }
    }
  }

  /** False only when it was not added. */
  mayHold(id: Uint8Array): boolean {
    const base = this.#blockOf(id);
    for (const [at, start] of WORDS.bits.entries()) {
      let hash = this.#hashAt(id, start);
      for (let field = 0; field < FIELDS[at]!; field += 1) {
        const bit = hash & FIELD_MASK;
        if ((this.#words[base + (bit >>> 5)]! & (1 << (bit & 31))) === 0) return false;
        hash >>>= FIELD_BITS;
      }
    }
    return true;
  }

  #blockOf(id: Uint8Array): number {
    const hash = this.#hashAt(id, WORDS.block) >>> 0;
    return Math.floor((hash / 2 ** 32) * this.#blockCount) * BLOCK_WORDS;
  }

  #hashAt = (id: Uint8Array, at: number): number =>
    mixed((id[at]! | (id[at + 1]! << 8) | (id[at + 2]! << 16) | (id[at + 3]! << 24)) ^ this.#seed);
}

/** Every bit of the result depends on every bit of `value`. */
function mixed(value: number): number {
  let hash = value;
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return hash ^ (hash >>> 16);
}

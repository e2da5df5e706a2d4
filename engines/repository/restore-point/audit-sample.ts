/**
 * Which blocks an audit of change tracking looks at. Pure; the same seed gives the same blocks, so whoever audits again
 * after a crash looks at the same ones. The chance that it finds something is in docs/audit.md, and a test holds it to it.
 */
import { digestOf } from '../../../schema/repository/digest.ts';

const LEAST_BLOCKS = 64;
const SHARE = 1 / 1000;
const MOST_BYTES = 1024 ** 3;
const SHARE_OF_CHANGED = 1 / 10;
/** Blocks that are drawn before the search for unchanged ones ends, in multiples of those that are wanted. */
const HOT_DRAWS = 8;
const DRAWS = 16;

/** Blocks to look at: 0.1 % of the disk's, at least 64; at most 1 GiB, or a tenth of what changed if that is more. */
export function auditSizeOf(of: { blockCount: number; blockSize: number; changedBytes: number }): number {
  const share = Math.max(LEAST_BLOCKS, Math.ceil(of.blockCount * SHARE));
  const mostBytes = Math.max(MOST_BYTES, of.changedBytes * SHARE_OF_CHANGED);
  return Math.min(share, Math.floor(mostBytes / of.blockSize), of.blockCount);
}

/** `blockCount`: blocks that may be asked for, from 0. `hot`: of those, blocks that changed not long ago, each once. */
export type AuditPopulation = { seed: string; blockCount: number; hot: readonly number[]; wanted: number };

type Stage = { draw(index: number): number; drawn: number; most: number; audited: number; wanted: number };

/**
 * First of the hot blocks, half of what is wanted, then of all others. Of each kind blocks are drawn one after the other,
 * none twice, each as likely as any other; those that were reported changed do not count, so what was audited is an
 * even sample of the unchanged ones.
 */
export class AuditSample {
  readonly wanted: number;
  readonly #stages: Stage[];
  readonly #hot = new Set<number>();
  #audited = 0;

  constructor({ seed, blockCount, hot, wanted }: AuditPopulation) {
    this.wanted = wanted;
    const ofHot = permutation(`${seed} hot`, hot.length);
    const ofAll = permutation(`${seed} all`, blockCount);
    const wantedHot = Math.floor(wanted / 2);
    const none = { drawn: 0, audited: 0 };
    const mostHot = Math.min(hot.length, HOT_DRAWS * wantedHot);
    const most = Math.min(blockCount, DRAWS * wanted);
    this.#stages = [
      { ...none, draw: (index) => hot[ofHot(index)]!, most: mostHot, wanted: wantedHot },
      { ...none, draw: ofAll, most, wanted },
    ];
  }

  get audited(): number {
    return this.#audited;
  }

  /** The next blocks, at most `count`; none: it is over. */
  next(count: number): number[] {
    for (let stage = this.#stages[0]; stage; stage = this.#stages[0]) {
      const blocks = this.#draw(stage, Math.min(count, stage.wanted - stage.audited));
      if (blocks.length > 0) return blocks;
      this.#stages.shift();
      const [all] = this.#stages;
      if (all) all.wanted = this.wanted - this.#audited;
    }
    return [];
  }

  /** `count` of the last blocks were unchanged by what tracking says, and looked at. */
  note(count: number): void {
    this.#stages[0]!.audited += count;
    this.#audited += count;
  }

  #draw(stage: Stage, count: number): number[] {
    const isHot = this.#stages.length > 1;
    const blocks: number[] = [];
    for (; blocks.length < count && stage.drawn < stage.most; stage.drawn += 1) {
      const block = stage.draw(stage.drawn);
      if (isHot) this.#hot.add(block);
      else if (this.#hot.has(block)) continue;
      blocks.push(block);
    }
    return blocks;
  }
}

/** Numbers below `count` in an order that the seed decides: the index-th of them. A Feistel network, so nothing is stored. */
export function permutation(seed: string, count: number): (index: number) => number {
  const keys = new Uint32Array(Uint8Array.from(digestOf(Buffer.from(seed))).buffer);
  const bits = Math.max(1, Math.ceil(Math.log2(Math.max(2, count)) / 2));
  const half = 2 ** bits;
  const once = (value: number): number => {
    let left = Math.floor(value / half);
    let right = value % half;
    for (const key of keys) [left, right] = [right, (left ^ (mixed(right ^ key) & (half - 1))) >>> 0];
    return left * half + right;
  };
  return (index) => {
    let value = once(index);
    // Beyond the end: on, until it is inside. Each number is met from one other only.
    while (value >= count) value = once(value);
    return value;
  };
}

/** The finalizer of MurmurHash3: each bit of the input moves each of the output. */
function mixed(value: number): number {
  let x = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b);
  x = Math.imul(x ^ (x >>> 13), 0xc2b2_ae35);
  return (x ^ (x >>> 16)) >>> 0;
}

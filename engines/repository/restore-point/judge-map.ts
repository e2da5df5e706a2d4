/**
 * Whether everything that maps name is there. A page below which nothing is missing is met once, however many maps share
 * it; what is missing is told each time, since each restore point is hit by it.
 */
import { blockCountOf } from '../../../schema/domain/extents.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import { DigestSet } from './digest-set.ts';
import { soundOrNull, type DiskMap, type PageReader } from './page-reader.ts';

/** `block`: the first that cannot be read for it. */
export type LostPart = { kind: 'record' | 'page'; digest: Uint8Array; block: number };

export type MapJudge = {
  /** Bytes of the disk that cannot be read; of a lost page all that lies below it, zeros too. */
  missingBytes(map: DiskMap, onLost?: (part: LostPart) => void): Promise<number>;
};

export type JudgeOptions = {
  pages: Pick<PageReader, 'page'>;
  /** Whether there is a record of `length` bytes; called for each block of each page that is met. */
  resolves: (digest: Uint8Array, length: number) => boolean | Promise<boolean>;
  signal?: AbortSignal;
};

type Subtree = { map: DiskMap; digest: Uint8Array; level: number; first: number };

export function createMapJudge({ pages, resolves, signal }: JudgeOptions): MapJudge {
  const whole = new DigestSet();
  type Told = (part: LostPart) => void;

  async function below(of: Subtree, onLost: Told): Promise<number> {
    if (whole.has(keyOf(of))) return 0;
    signal?.throwIfAborted();
    const page = await soundOrNull(() => pages.page(of.digest));
    // A map of another shape than its disk leads nowhere.
    if (page?.byteLength !== entryCountOf(of) * 32) return lost(of, onLost);
    const missing = of.level === 1 ? await inLeaf(of, page, onLost) : await inChildren(of, page, onLost);
    if (missing === 0) whole.add(keyOf(of));
    return missing;
  }

  async function inChildren(of: Subtree, page: Uint8Array, onLost: Told): Promise<number> {
    let missing = 0;
    for (let at = 0; at * 32 < page.byteLength; at += 1) {
      const first = of.first + at * blocksBelow(of.level - 1);
      missing += await below({ map: of.map, digest: entryOf(page, at), level: of.level - 1, first }, onLost);
    }
    return missing;
  }

  async function inLeaf({ map, first }: Subtree, page: Uint8Array, onLost: Told): Promise<number> {
    let missing = 0;
    for (let at = 0; at * 32 < page.byteLength; at += 1) {
      const digest = entryOf(page, at);
      const length = blockLengthOf(first + at, map.sizeBytes, map.blockSize);
      const found = isZero(digest) || resolves(digest, length);
      if (found === true || (await found)) continue;
      onLost({ kind: 'record', digest, block: first + at });
      missing += length;
    }
    return missing;
  }

  return {
    missingBytes: async (map, onLost = () => undefined) => {
      if (map.height === 0) return 0;
      return below({ map, digest: Buffer.from(map.root, 'hex'), level: map.height, first: 0 }, onLost);
    },
  };
}

/** Blocks below one page of a level. */
const blocksBelow = (level: number): number => PAGE_ENTRIES ** level;

function entryCountOf({ map, level, first }: Subtree): number {
  const blocks = blockCountOf(map.sizeBytes, map.blockSize) - first;
  return Math.min(PAGE_ENTRIES, Math.ceil(blocks / blocksBelow(level - 1)));
}

function lost({ map, digest, level, first }: Subtree, onLost: (part: LostPart) => void): number {
  onLost({ kind: 'page', digest, block: first });
  return Math.min(map.sizeBytes - first * map.blockSize, blocksBelow(level) * map.blockSize);
}

/** A page of one level says something else on another, or in a disk of other blocks. */
function keyOf({ map, digest, level }: Subtree): Uint8Array {
  const key = Buffer.from(digest.subarray(0, 8));
  key[0]! ^= level;
  key.writeUInt32LE((key.readUInt32LE(1) ^ map.blockSize) >>> 0, 1);
  return key;
}

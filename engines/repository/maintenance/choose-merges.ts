/**
 * Which small packs are written together. A pack that nobody writes to is closed after minutes, so a job that runs often
 * leaves thousands a year; being all living, they would stay as they are for ever.
 *
 * Packs are merged, the lightest first, when together they are at least 4 times as heavy as the heaviest of them. So
 * - each copy of a record puts it into a pack at least 4 times as heavy as the one before. Of that less than 0.4 can die
 *   before it is rewritten for what died, which pays for itself: what is left is at least 2.4 times as heavy. So between
 *   two such rewritings a record is copied at most log 2.4 of (a pack / its first pack) times: from a pack of 1 MiB on five
 *   times in the worst case, and three where nothing dies;
 * - few wait: of those that do each is more than a third as heavy as all lighter ones together, so they are as many as
 *   the logarithm, to 4/3, of heaviest by lightest: some thirty, from one small block to the largest.
 * Where most records of a pack are dead, though few of its bytes, the new pack may be closed early (`MOST_LISTED_RECORDS`)
 * and be lighter: once, since the copies have no dead ones beside them.
 */
import type { PackContents } from '../../../schema/repository/pack.ts';
import type { PackName } from '../pack/pack-reader.ts';
import type { PackAccount } from './pack-account.ts';
import { MOST_LISTED_RECORDS, TARGET_BYTES } from './pack-sizes.ts';

const GROWTH = 4;
/** Of one pack, at most: so many of them that one more does not fit are `GROWTH` times as heavy as any of them. */
const SMALL = 1 / (GROWTH + 1);

/** Packs that become one. */
export type Merge = { contents: PackContents; packs: PackName[]; liveBytes: number };

/** A sum, so that of a merge it is that of its packs; 1: what surely goes into one new pack. */
type Weighed = { name: PackName; weight: number; liveBytes: number };

/** `packs`: closed ones that nobody needs where they are. */
export function chooseMerges(packs: readonly PackName[], accounts: ReadonlyMap<string, PackAccount>): Merge[] {
  const merges: Merge[] = [];
  for (const contents of ['blocks', 'pages'] as const) {
    const small: Weighed[] = [];
    for (const name of packs.filter((pack) => pack.contents === contents)) {
      const { liveBytes, liveRecords } = accounts.get(name.packId)!;
      const weight = liveBytes / TARGET_BYTES[contents] + liveRecords / MOST_LISTED_RECORDS;
      if (weight <= SMALL) small.push({ name, weight, liveBytes });
    }
    small.sort((a, b) => a.weight - b.weight);
    for (const together of cut(small)) {
      const liveBytes = together.reduce((sum, pack) => sum + pack.liveBytes, 0);
      merges.push({ contents, packs: together.map(({ name }) => name), liveBytes });
    }
  }
  return merges;
}

/** `small`: the lightest first. */
function* cut(small: readonly Weighed[]): Generator<readonly Weighed[]> {
  let from = 0;
  /** Worth it from `from` up to there. */
  let to = 0;
  let sum = 0;
  for (const [at, { weight }] of small.entries()) {
    if (sum + weight > 1) {
      yield small.slice(from, at);
      from = at;
      sum = 0;
    }
    sum += weight;
    if (sum >= GROWTH * weight) to = at + 1;
  }
  if (to > from) yield small.slice(from, to);
}

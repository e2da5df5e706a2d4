/**
 * Which segments are merged next. Sizes are in tiers, each 4 times the one below; four of a tier become one of the next,
 * together with whatever is newer. So an entry is written once per tier, and there are at most three segments of each.
 */
const FAN_IN = 4;
/** Of this share of dead entries on, a segment is written anew. */
const DEAD_SHARE = 0.25;

export type SegmentSize = { entryCount: number; deadCount: number };
/** Indexes of the segments, oldest first: `from ... to - 1`. */
export type MergeRange = { from: number; to: number };

/** `tierEntries`: of the second tier, at least. Null: nothing is to be merged. */
export function nextMerge(segments: readonly SegmentSize[], tierEntries: number): MergeRange | null {
  const tiers = segments.map((size) => tierOf(size.entryCount - size.deadCount, tierEntries));
  for (let tier = Math.max(0, ...tiers); tier >= 0; tier -= 1) {
    // Only neighbours in age: of two entries of an id the older has to be told from the newer.
    const from = tiers.findLastIndex((one) => one > tier) + 1;
    if (tiers.slice(from).filter((one) => one === tier).length >= FAN_IN) return { from, to: segments.length };
  }
  const dying = segments.findIndex(({ entryCount, deadCount }) => deadCount >= entryCount * DEAD_SHARE);
  return dying < 0 ? null : { from: dying, to: dying + 1 };
}

function tierOf(entryCount: number, tierEntries: number): number {
  let tier = 0;
  for (let least = tierEntries; entryCount >= least; least *= FAN_IN) tier += 1;
  return tier;
}

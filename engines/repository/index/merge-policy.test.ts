import { expect, test } from 'vitest';
import { nextMerge, type SegmentSize } from './merge-policy.ts';

/** Flushes of `entryCount` each; entries written per entry, and most segments at a time. */
function grow(entryCount: number, flushes: number) {
  let segments: SegmentSize[] = [];
  let written = 0;
  let most = 0;
  for (let flush = 0; flush < flushes; flush += 1) {
    segments.push({ entryCount, deadCount: 0 });
    written += entryCount;
    for (let range = nextMerge(segments, 8192); range; range = nextMerge(segments, 8192)) {
      const merged = segments.slice(range.from, range.to).reduce((sum, one) => sum + one.entryCount, 0);
      written += merged;
      segments = [...segments.slice(0, range.from), { entryCount: merged, deadCount: 0 }, ...segments.slice(range.to)];
    }
    most = Math.max(most, segments.length);
  }
  return { writes: written / entryCount / flushes, most };
}

test('ten million entries are written less than three times each, and lie in at most nine segments', () => {
  const { writes, most } = grow(262_144, 38);
  expect(writes).toBeLessThan(3);
  expect(most).toBeLessThanOrEqual(9);
});

test('small ones are merged as well', () => {
  const { writes, most } = grow(100, 4000);
  expect(writes).toBeLessThan(30);
  expect(most).toBeLessThanOrEqual(12);
});

test('one with many dead entries is written anew; only neighbours in age are merged', () => {
  const big = { entryCount: 100_000, deadCount: 0 };
  const small = { entryCount: 10, deadCount: 0 };
  expect(nextMerge([big, small, big, small], 8192)).toBeNull();
  expect(nextMerge([big, { entryCount: 100_000, deadCount: 25_000 }, small], 8192)).toEqual({ from: 1, to: 2 });
  expect(nextMerge([small, big, small, small, small, small], 8192)).toEqual({ from: 2, to: 6 });
  expect(nextMerge([big, small, big, big, small, big], 8192)).toEqual({ from: 0, to: 6 });
  expect(nextMerge([], 8192)).toBeNull();
});

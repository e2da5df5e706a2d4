import { expect, test } from 'vitest';
import { noStageTimes, type Stage } from '../../schema/domain/stages.ts';
import { Depth, type DepthBounds, type DepthFigures } from './depth.ts';
import { restoreDepthOf, WINDOWS_PER_LANE } from './restore-client/restore-depth.ts';
import { MOST_PER_LANE, readDepthOf } from './source/read-depth.ts';

const WINDOW = 64 * 1024 * 1024;
const LANES = 2;

/** Windows of a disk that gives `rateOf(depth)` bytes per millisecond, with something else at `busy` for `share` of the time. */
function transfer(
  rateOf: (depth: number) => number,
  of: {
    windows?: number;
    readDepth?: number;
    share?: number;
    busy?: Stage;
    laneLimit?: number;
    bounds?: DepthBounds;
  } = {},
): number[] {
  const { windows = 200, share = 0, busy = 'proxy', laneLimit = Infinity, bounds, ...fixed } = of;
  let now: DepthFigures = { bytes: 0, nowMs: 0, stages: noStageTimes };
  const depth = new Depth(bounds ?? readDepthOf({ laneCount: LANES, ...fixed }, laneLimit), now);
  const depths: number[] = [];
  for (let i = 0; i < windows; i += 1) {
    const ms = WINDOW / rateOf(depth.depth);
    const stages = { ...now.stages, source: now.stages.source + ms * (1 - share) };
    stages[busy] += ms * share;
    now = { bytes: now.bytes + WINDOW, nowMs: now.nowMs + ms, stages };
    depth.look(now);
    depths.push(depth.depth);
  }
  return depths;
}
/** What it stays at, tries apart. */
const settledAt = (depths: readonly number[]): number => {
  const late = depths.slice(-50).toSorted((a, b) => a - b);
  return late[25]!;
};

test('a spinning disk, whose heads move between what is read at once, is left with one', () => {
  expect(settledAt(transfer((depth) => 100_000 / (1 + 0.5 * (depth - 1))))).toBe(1);
});

test('an array that serves sixteen at once gets them', () => {
  expect(settledAt(transfer((depth) => 20_000 * Math.min(16, depth)))).toBe(LANES * MOST_PER_LANE);
});

test('what two at once can use up gets two', () => {
  expect(settledAt(transfer((depth) => 20_000 * Math.min(2, depth)))).toBe(2);
});

test('a link whose round trip hides behind eight is given eight', () => {
  expect(settledAt(transfer((depth) => 20_000 * Math.min(8, depth), { share: 0.9, busy: 'network' }))).toBe(8);
});

test('nothing is tried while the processor or a rule holds the transfer up', () => {
  for (const busy of ['proxy', 'throttling'] as const)
    expect(new Set(transfer((depth) => 20_000 * depth, { share: 0.6, busy }))).toEqual(new Set([8]));
});

test('tries become rare where none brings anything', () => {
  const depths = transfer((depth) => 20_000 * Math.min(8, depth), { windows: 400 });
  const away = depths.slice(200).filter((depth) => depth !== 8).length;
  expect(away).toBeGreaterThan(0);
  expect(away).toBeLessThan(200 / 8);
});

test('a depth that was asked for stays', () => {
  expect(new Set(transfer((depth) => 20_000 * depth, { readDepth: 3 }))).toEqual(new Set([3]));
});

test('an export that takes one connection has one lane', () => {
  expect(Math.max(...transfer((depth) => 20_000 * depth, { laneLimit: 1 }))).toBe(MOST_PER_LANE);
});

test('a restore begins with all its lanes take, and has one window at once from a disk whose heads move between packs', () => {
  const bounds = restoreDepthOf({ laneCount: LANES }, Infinity);
  const [first, ...depths] = transfer((depth) => 100_000 / (1 + 0.5 * (depth - 1)), { bounds });
  expect(first).toBe(LANES * WINDOWS_PER_LANE);
  expect(settledAt(depths)).toBe(1);
  expect(settledAt(transfer((depth) => 20_000 * depth, { bounds }))).toBe(LANES * WINDOWS_PER_LANE);
});

test('a restore with a depth that was asked for, or over an export with few connections, stays below it', () => {
  const asked = restoreDepthOf({ laneCount: LANES, restoreDepth: 1 }, Infinity);
  expect(new Set(transfer((depth) => 20_000 * depth, { bounds: asked }))).toEqual(new Set([1]));
  const few = restoreDepthOf({ laneCount: 8 }, 3);
  expect(Math.max(...transfer((depth) => 20_000 * depth, { bounds: few }))).toBe(3 * WINDOWS_PER_LANE);
});

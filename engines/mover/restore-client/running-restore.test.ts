import { expect, test } from 'vitest';
import { diskKey, restorePointId, runKey } from '../../../schema/domain/ids.ts';
import { noStageTimes } from '../../../schema/domain/stages.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { RunningRestore } from './running-restore.ts';

const WINDOW = 64 * 1024 * 1024;

/** Windows that go over one after another, each as slow as `msOf` of what is in work; how many were in work at each. */
function restored(windows: number, msOf: (inWork: number) => number, restoreDepth?: number): number[] {
  let nowMs = 0;
  const seams = { ...testSeams(), clock: { ...testSeams().clock, monotonic: () => nowMs } };
  const run = runKey('restore00000');
  const disk = { run, diskKey: diskKey('d0'), sizeBytes: windows * WINDOW };
  const order = {
    ...disk,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    endpoint: { unix: '/none' },
    target: { ...disk, cursorFile: '/none', data: { via: 'file' as const, path: '/none' } },
    signal: new AbortController().signal,
  };
  const lanes = { laneCount: 2, ...(restoreDepth === undefined ? {} : { restoreDepth }), seams };
  const restore = new RunningRestore(1, order, { lowWater: 0, above: [] }, lanes);
  const inWork: ReturnType<RunningRestore['take']>[] = [];
  const counts: number[] = [];
  for (;;) {
    for (let item = restore.take(); item; item = restore.take()) inWork.push(item);
    const item = inWork.shift();
    if (!item) return counts;
    counts.push(inWork.length + 1);
    const ms = msOf(inWork.length + 1);
    nowMs += ms;
    restore.addStages({ ...noStageTimes, source: ms });
    restore.done(item, { receivedBytes: WINDOW, writtenBytes: WINDOW });
  }
}

test('windows in work become one where that is faster, and all are restored', () => {
  const counts = restored(100, (inWork) => 100 * inWork);
  expect(counts).toHaveLength(100);
  expect(counts[0]).toBe(4);
  expect(counts.slice(-40, -4).filter((count) => count === 1).length).toBeGreaterThan(25);
});

test('an operator who wants one has one', () => {
  expect(new Set(restored(20, () => 100, 1))).toEqual(new Set([1]));
});

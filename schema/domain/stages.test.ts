import { expect, test } from 'vitest';
import { addStageTimes, bottleneckWords, noStageTimes, stageLine, verdictOf } from './stages.ts';

const times = { source: 910, proxy: 60, throttling: 0, network: 20, target: 10 };

test('the verdict is the stage with the largest share, and the shares of a stage come to all of the time', () => {
  const verdict = verdictOf(times)!;
  expect(verdict.bottleneck).toBe('source');
  expect(verdict.shares.source).toEqual({ busy: 91, waitsForInput: 0, waitsForOutput: 9 });
  expect(verdict.shares.proxy).toEqual({ busy: 6, waitsForInput: 91, waitsForOutput: 3 });
  expect(verdict.shares.target).toEqual({ busy: 1, waitsForInput: 99, waitsForOutput: 0 });
  expect(verdictOf(noStageTimes)).toBeNull();
});

test('throttling is a verdict of its own, and shown only where there was some', () => {
  expect(stageLine(times)).toBe('Source 91% > Proxy 6% > Network 2% > Target 1%');
  expect(bottleneckWords(times)).toBe('source 91%');
  const throttled = addStageTimes(times, { ...noStageTimes, throttling: 3000 });
  expect(stageLine(throttled)).toBe('Source 23% > Proxy 2% > Throttling 75% > Network 1% > Target 0%');
  expect(bottleneckWords(throttled)).toBe('throttling 75%');
  expect([stageLine(noStageTimes), stageLine(null), bottleneckWords(undefined)]).toEqual(['', '', '']);
});

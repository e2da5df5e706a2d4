import { expect, test } from 'vitest';
import { addStageTimes, noStageTimes, type StageTimes } from '../../../schema/domain/stages.ts';
import type { Compression, CompressionLevel } from '../../../schema/domain/states.ts';
import { LevelChoice } from './level-choice.ts';

const processor: StageTimes = { ...noStageTimes, source: 20, proxy: 80 };
const network: StageTimes = { ...noStageTimes, proxy: 30, network: 40, target: 30 };
const rule: StageTimes = { ...noStageTimes, proxy: 10, throttling: 90 };
const source: StageTimes = { ...noStageTimes, source: 75, proxy: 20, network: 5 };

/** A lane that sends one window after another. */
function laneWith(compression: Compression): (...windows: StageTimes[]) => CompressionLevel {
  const choice = new LevelChoice(compression);
  let times: Readonly<StageTimes> = noStageTimes;
  return (...windows) => {
    for (const window of windows) choice.afterWindow((times = addStageTimes(times, window)));
    return choice.level;
  };
}

test('auto gives compression up when the processor holds a transfer up, and takes more when the network does', () => {
  const after = laneWith('auto');
  expect(after()).toBe('balanced');
  expect(after(processor, processor)).toBe('fast');
  expect(after(processor, processor)).toBe('none');
  expect(after(processor, processor)).toBe('none');
  expect(after(network, network)).toBe('fast');
  expect(after(network, network, network, network)).toBe('small');
  expect(after(network, network)).toBe('small');
});

test('what a rule holds back is compressed more', () => {
  expect(laneWith('auto')(rule, rule)).toBe('small');
});

test('one window alone decides nothing, and a slow source is no reason', () => {
  const after = laneWith('auto');
  expect(after(processor, network, processor, source, processor, network)).toBe('balanced');
  expect(after(source, source, source)).toBe('balanced');
});

test('a level that was asked for stays', () => {
  expect(laneWith('small')(processor, processor, processor)).toBe('small');
});

import { expect, test } from 'vitest';
import type { CompressionLevel } from '../../../schema/domain/states.ts';
import { LevelChoice, WindowClock, type WindowTimes } from './level-choice.ts';

const processor: WindowTimes = { totalMs: 100, encodeMs: 80, waitMs: 5 };
const network: WindowTimes = { totalMs: 100, encodeMs: 20, waitMs: 70 };
const source: WindowTimes = { totalMs: 100, encodeMs: 20, waitMs: 5 };
const after = (choice: LevelChoice, ...windows: WindowTimes[]): CompressionLevel => {
  for (const window of windows) choice.afterWindow(window);
  return choice.level;
};

test('auto gives compression up when the processor holds a transfer up, and takes more when the network does', () => {
  const choice = new LevelChoice('auto');
  expect(choice.level).toBe('balanced');
  expect(after(choice, processor, processor)).toBe('fast');
  expect(after(choice, processor, processor)).toBe('none');
  expect(after(choice, processor, processor)).toBe('none');
  expect(after(choice, network, network)).toBe('fast');
  expect(after(choice, network, network, network, network)).toBe('small');
  expect(after(choice, network, network)).toBe('small');
});

test('one window alone decides nothing, and a slow source is no reason', () => {
  const choice = new LevelChoice('auto');
  expect(after(choice, processor, network, processor, source, processor, network)).toBe('balanced');
  expect(after(choice, source, source, source)).toBe('balanced');
});

test('a level that was asked for stays', () => {
  expect(after(new LevelChoice('small'), processor, processor, processor)).toBe('small');
});

test('what is compressed while payloads are on their way is no waiting', async () => {
  let nowMs = 0;
  const clock = new WindowClock(() => nowMs);
  const release: (() => void)[] = [];
  const send = (): Promise<void> => clock.leave(new Promise((resolve) => release.push(resolve)));
  const first = send();
  nowMs = 10;
  const second = send();
  clock.encode(() => (nowMs = 35));
  nowMs = 40;
  release[0]!();
  await first;
  nowMs = 70;
  release[1]!();
  await second;
  nowMs = 100;
  expect(clock.times).toEqual({ totalMs: 100, encodeMs: 25, waitMs: 10 + 5 + 30 });
});

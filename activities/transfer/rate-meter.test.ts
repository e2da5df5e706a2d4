import { expect, it } from 'vitest';
import { RateMeter } from './rate-meter.ts';

it('measures over the last seconds, and falls to nothing when nothing comes', () => {
  const meter = new RateMeter();
  expect(meter.bytesPerSecond).toBe(0);
  for (let second = 0; second <= 20; second += 1) meter.add(second * 1000, second * 100);
  expect(meter.bytesPerSecond).toBe(100);
  // Ten times as fast: over the last five seconds half of it is seen after two and a half.
  for (let second = 21; second <= 30; second += 1) meter.add(second * 1000, 2000 + (second - 20) * 1000);
  expect(meter.bytesPerSecond).toBe(1000);
  for (let second = 31; second <= 33; second += 1) meter.add(second * 1000, 12_000);
  expect(meter.bytesPerSecond).toBe(400);
  for (let second = 34; second <= 36; second += 1) meter.add(second * 1000, 12_000);
  expect(meter.bytesPerSecond).toBe(0);
});

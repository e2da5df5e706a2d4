import { beforeEach, expect, it } from 'vitest';
import { SILENT_AFTER_MS, type WorkerSign, WorkerWatch } from './worker-watch.ts';

let watch: WorkerWatch;
beforeEach(() => {
  watch = new WorkerWatch();
});
const sign = (instance: string, at: number, queue = 'proxy.p1'): WorkerSign => ({ instance, queue, sign: String(at) });

it('knows nothing at first, then who gives signs, then who stopped', () => {
  watch.observe([sign('a', 1)], 0);
  // The entry of a worker that died long ago looks the same.
  expect(watch.verdict('proxy.p1', 0)).toBe('unknown');
  expect(watch.silentMs('proxy.p1', 0)).toBeNull();
  watch.observe([sign('a', 2)], 5000);
  expect(watch.verdict('proxy.p1', 5000)).toBe('alive');
  watch.observe([sign('a', 2)], 5000 + SILENT_AFTER_MS);
  expect(watch.verdict('proxy.p1', 5000 + SILENT_AFTER_MS)).toBe('silent');
  expect(watch.silentMs('proxy.p1', 5000 + SILENT_AFTER_MS)).toBe(SILENT_AFTER_MS);
  watch.observe([sign('b', 1)], 90_000);
  watch.observe([sign('b', 2)], 93_000);
  expect(watch.verdict('proxy.p1', 93_000)).toBe('alive');
});

it('gives a queue that was never asked for its time', () => {
  watch.observe([], 0);
  watch.observe([], 60_000);
  expect(watch.verdict('host.h1.ctl', 60_000)).toBe('unknown');
  expect(watch.verdict('host.h1.ctl', 60_000 + SILENT_AFTER_MS)).toBe('silent');
});

it('calls nobody silent for what Temporal did not tell', () => {
  watch.observe([sign('a', 1)], 0);
  watch.observe([sign('a', 2)], 3000);
  expect(watch.verdict('proxy.p1', 3000)).toBe('alive');
  watch.missed();
  expect(watch.verdict('proxy.p1', 100_000)).toBe('unknown');
  watch.observe([], 100_000);
  expect(watch.verdict('proxy.p1', 100_001)).toBe('unknown');
  expect(watch.verdict('proxy.p1', 100_000 + SILENT_AFTER_MS)).toBe('silent');
});

it('a queue is alive while one of its workers is', () => {
  watch.observe([sign('a', 1), sign('b', 1)], 0);
  watch.observe([sign('a', 1), sign('b', 2)], 50_000);
  expect(watch.verdict('proxy.p1', 50_000)).toBe('alive');
});

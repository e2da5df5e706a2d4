import { expect, test } from 'vitest';
import type { Clock } from '../../schema/domain/seams.ts';
import { Brake, Brakes } from './brakes.ts';

const MIB = 1024 * 1024;
const config = { name: 'datastore ssd', readBytesPerSecond: null, latencyMs: 50 };

/** A storage whose reads take `perRead` ms for each that is under way, and eager readers; time goes by hand. */
class Storage {
  nowMs = 0;
  readonly clock: Clock = {
    now: () => this.nowMs,
    monotonic: () => this.nowMs,
    sleep: (durationMs) => new Promise((resolve) => this.#timers.push({ atMs: this.nowMs + durationMs, resolve })),
  };
  readonly brake = new Brake(config, this.clock);
  readonly #timers: { atMs: number; resolve: () => void }[] = [];
  perRead: number;
  inFlight = 0;
  /** Latencies as they were seen. */
  seen: number[] = [];

  constructor(perRead: number) {
    this.perRead = perRead;
  }

  async reader(): Promise<void> {
    for (;;) {
      await this.brake.begin(MIB);
      this.inFlight += 1;
      const latencyMs = this.perRead * this.inFlight;
      await this.clock.sleep(latencyMs);
      this.inFlight -= 1;
      this.seen.push(latencyMs);
      this.brake.end(latencyMs);
    }
  }

  async pass(durationMs: number): Promise<void> {
    for (const endMs = this.nowMs + durationMs; this.nowMs < endMs; this.nowMs += 1) {
      for (const timer of this.#timers.filter(({ atMs }) => atMs <= this.nowMs)) {
        this.#timers.splice(this.#timers.indexOf(timer), 1);
        timer.resolve();
      }
      for (let turn = 0; turn < 12; turn += 1) await Promise.resolve();
    }
  }
}

const average = (list: readonly number[]): number => list.reduce((sum, each) => sum + each, 0) / list.length;

test('fewer reads are under way when they take too long, and more again when they do not', async () => {
  const storage = new Storage(10);
  for (let i = 0; i < 16; i += 1) void storage.reader();
  await storage.pass(5000);
  storage.seen = [];
  await storage.pass(20_000);
  // Five at once take 50 ms.
  expect(average(storage.seen)).toBeLessThan(60);
  expect(storage.brake.allowed).toBeLessThan(8);
  expect(storage.brake.reason).toMatch(/^brake: latency of datastore ssd is \d+ ms$/);
  storage.perRead = 1;
  await storage.pass(20_000);
  expect(storage.inFlight).toBe(16);
  expect(storage.brake.reason).toBeNull();
});

test('a storage that is slow with one read alone is left alone between them', async () => {
  const storage = new Storage(100);
  for (let i = 0; i < 4; i += 1) void storage.reader();
  await storage.pass(20_000);
  storage.seen = [];
  await storage.pass(20_000);
  // Without pauses there were 200 of them.
  expect(storage.seen.length).toBeLessThan(40);
  storage.perRead = 5;
  storage.seen = [];
  await storage.pass(20_000);
  expect(storage.seen.length).toBeGreaterThan(200);
});

test('no latency holds anything back without a bound; a rate says so', async () => {
  const storage = new Storage(100);
  storage.brake.configure({ ...config, latencyMs: null });
  for (let i = 0; i < 4; i += 1) void storage.reader();
  await storage.pass(2000);
  expect(storage.inFlight).toBe(4);
  expect(storage.brake.reason).toBeNull();
  storage.brake.configure({ ...config, latencyMs: null, readBytesPerSecond: 50 * MIB });
  // The bucket is empty at first.
  expect(storage.brake.reason).toBe('brake: datastore ssd is read at 50.0 MiB/s at most');
});

test('reads of a lane that died are given back', async () => {
  const brakes = new Brakes(new Storage(1).clock, 'read');
  brakes.configure([config]);
  // As many as may ever be under way.
  for (let i = 0; i < 256; i += 1) await brakes.begin({ lane: 0, work: 1 }, [config], MIB);
  expect(brakes.reasonOf([config])).toContain('datastore ssd');
  const other = brakes.begin({ lane: 1, work: 2 }, [config], MIB);
  expect([1, 2].map((work) => brakes.isUnderWay(work))).toEqual([true, false]);
  brakes.endLane(0);
  expect(await other).toBe(257);
  expect([1, 2].map((work) => brakes.isUnderWay(work))).toEqual([false, true]);
  expect(brakes.reasonOf([config])).toBeNull();
});

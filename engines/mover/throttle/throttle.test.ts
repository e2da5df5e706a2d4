/** Rules reach running transfers. Nothing is timed: what ends would not without the change. */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { restorePointId, runKey } from '../../../schema/domain/ids.ts';
import type { ThrottleRule } from '../../../schema/domain/networks.ts';
import { verdictOf } from '../../../schema/domain/stages.ts';
import { orderOf, seeded, TEST_DISK, writeRandomDisk } from '../../../tests/fixtures/mover/disks.ts';
import { expectedMap, MemoryRepository } from '../../../tests/fixtures/mover/memory-repository.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { createRestorePool } from '../restore-client/pool.ts';
import { createSourcePool, type SourcePool, type TransferProgress } from '../source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../target/mover-target.ts';
import { Throttle } from './throttle.ts';

const MIB = 1024 * 1024;
const sizeBytes = 24 * MIB;
const lane = (name: string): URL => new URL(`../../../tests/fixtures/mover/${name}.ts`, import.meta.url);
const seams = testSeams();

let folder: string;
let repository: MemoryRepository;
let throttle: Throttle;
let target: MoverTarget;
let pool: SourcePool;
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-throttle-'));
  await writeRandomDisk(path.join(folder, 'disk'), sizeBytes, seeded().next, 1);
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  throttle = new Throttle(seams);
});
afterEach(async () => {
  await pool?.close();
  await target?.close();
  throttle.close();
  await rm(folder, { recursive: true, force: true });
});

async function start(tcp: boolean): Promise<void> {
  target = await startMoverTarget({
    listen: tcp ? { host: '127.0.0.1', port: 0 } : { unix: path.join(folder, 'sock', 'mover') },
    laneCount: 2,
    laneEntry: lane('target-lane'),
    laneData: { folder },
    registrar: repository,
    restoreSource: repository.restoreSource(sizeBytes, MIB),
    throttle: throttle.ofRepository('main'),
    seams,
  });
  pool = createSourcePool({ laneCount: 2, laneEntry: lane('source-lane'), seams });
}

const rule = (rateBytesPerSecond: number, of: Partial<ThrottleRule> = {}): ThrottleRule => ({
  name: 'office',
  from: '127.0.0.0/8',
  to: '127.0.0.0/8',
  rateBytesPerSecond,
  hours: [],
  restores: false,
  local: false,
  ...of,
});
const rules = (...list: ThrottleRule[]): void =>
  throttle.configure({ networks: { timeZone: 'UTC', preferred: [], throttle: list }, repositories: new Map() });

function transfer(onProgress?: (progress: TransferProgress) => void) {
  const disk = { file: path.join(folder, 'disk') };
  const order = orderOf({ disk, sizeBytes, blockSize: MIB, compression: 'none', endpoint: target.endpoint });
  return pool.transfer({ ...order, ...(onProgress ? { onProgress } : {}) });
}

test('a rule holds a transfer back, which says so, and lets it go at once when it is gone', async () => {
  await start(true);
  // At this rate it would take a month.
  rules(rule(10));
  let told: TransferProgress | null = null;
  const sending = transfer((progress) => (told = progress));
  const isHeldBack = (): boolean => told?.waitsFor === 'throttling (rule office)';
  while (!isHeldBack()) await seams.clock.sleep(20);
  rules(rule(8 * MIB));
  const summary = await sending;
  expect(summary).toMatchObject({ sentBytes: sizeBytes, reconnects: 0 });
  expect(verdictOf(summary.stages!)!.bottleneck).toBe('throttling');
  expect(repository.map(sizeBytes, MIB)).toEqual(await expectedMap(path.join(folder, 'disk'), MIB));
});

test('what stays on one machine is held back by rules that say so, and by the limits of its repository', async () => {
  await start(false);
  rules(rule(10));
  await transfer();
  repository.windows.clear();
  repository.places.clear();
  rules(rule(10, { local: true }));
  const waits = new Set<string | null>();
  const sending = transfer(({ waitsFor }) => waits.add(waitsFor));
  while (!waits.has('throttling (rule office)')) await seams.clock.sleep(20);
  const limits = { readBytesPerSecond: null, writeBytesPerSecond: 10 };
  throttle.configure({ networks: null, repositories: new Map([['main', limits]]) });
  while (!waits.has('throttling (repository main, writing)')) await seams.clock.sleep(20);
  rules();
  expect(await sending).toMatchObject({ sentBytes: sizeBytes });
});

test('a restore is held back by what its repository may send, and comes back byte for byte', async () => {
  await start(false);
  await transfer();
  const restores = createRestorePool({ laneCount: 1, laneEntry: lane('restore-lane'), seams });
  const reading = (readBytesPerSecond: number): void =>
    throttle.configure({
      networks: null,
      repositories: new Map([['main', { readBytesPerSecond, writeBytesPerSecond: null }]]),
    });
  reading(10);
  const file = path.join(folder, 'restored');
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  const run = runKey('restore00000');
  let isDone = false;
  const restoring = restores.restoreDisk({
    run,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    diskKey: TEST_DISK,
    endpoint: target.endpoint,
    target: { run, diskKey: TEST_DISK, sizeBytes, cursorFile: `${file}.cursor`, data: { via: 'file', path: file } },
    signal: new AbortController().signal,
  });
  void restoring.then(() => (isDone = true)).catch(() => undefined);
  await seams.clock.sleep(1000);
  expect(isDone).toBe(false);
  reading(16 * MIB);
  await restoring;
  await restores.close();
  expect((await readFile(file)).equals(await readFile(path.join(folder, 'disk')))).toBe(true);
});

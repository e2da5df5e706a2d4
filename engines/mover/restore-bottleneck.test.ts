/** Each stage of a restore slowed down in turn: the verdict names it. Which one is largest is asked, never how long anything took. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import type { BrakeConfig } from '../../schema/domain/configuration.ts';
import {
  addStageTimes,
  noStageTimes,
  type Stage,
  stageLine,
  type StageTimes,
  verdictOf,
} from '../../schema/domain/stages.ts';
import { orderOf, seeded, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { restoreOrderOf } from '../../tests/fixtures/mover/restores.ts';
import type { TestRestoreLane } from '../../tests/fixtures/mover/restore-lane.ts';
import { slowRelay } from '../../tests/fixtures/mover/slow-relay.ts';
import type { TestTarget } from '../../tests/fixtures/mover/target-lane.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestorePool } from './restore-client/pool.ts';
import type { RestoreProgress } from './restore-client/restore-spec.ts';
import { createSourcePool } from './source/pool.ts';
import { startMoverTarget } from './target/mover-target.ts';
import { Throttle } from './throttle/throttle.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 24 * MIB;
const lane = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);
type Slow = {
  lane?: TestRestoreLane;
  target?: Partial<TestTarget>;
  networkBytesPerSecond?: number;
  brakes?: BrakeConfig[];
  readBytesPerSecond?: number;
  targetSilenceMs?: number;
};

let folder: string;
let repository: MemoryRepository;
let target: Awaited<ReturnType<typeof startTarget>>;
let throttle: Throttle;

const startTarget = (of: Partial<TestTarget>, seams = testSeams()) =>
  startMoverTarget({
    listen: { host: '127.0.0.1', port: 0 },
    laneCount: 1,
    laneEntry: lane('target-lane'),
    laneData: { folder, ...of },
    registrar: repository,
    restoreSource: repository.restoreSource(SIZE_BYTES, MIB),
    throttle: throttle.ofRepository('main'),
    seams,
  });

beforeAll(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-slow-restore-'));
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  throttle = new Throttle(testSeams());
  const disk = { file: path.join(folder, 'disk') };
  await writeRandomDisk(disk.file, SIZE_BYTES, seeded().next, 1);
  const made = await startTarget({});
  const pool = createSourcePool({ laneCount: 1, laneEntry: lane('source-lane'), seams: testSeams() });
  const { endpoint } = made;
  await pool.transfer(orderOf({ disk, sizeBytes: SIZE_BYTES, blockSize: MIB, compression: 'none', endpoint }));
  await pool.close();
  await made.close();
});
afterAll(async () => {
  throttle.close();
  await rm(folder, { recursive: true, force: true });
});
beforeEach(() => throttle.configure({ networks: null, repositories: new Map() }));
afterEach(() => target?.close());

async function restoreWith(
  slow: Slow,
  signal = new AbortController().signal,
  onProgress: (p: RestoreProgress) => void = () => undefined,
): Promise<{ stages: StageTimes; told: RestoreProgress[]; metered: StageTimes }> {
  let metered: StageTimes = { ...noStageTimes };
  const meter = {
    add: (name: string, amount: number, labels?: Record<string, string>) => {
      if (name === 'restore_stage_ms')
        metered = addStageTimes(metered, { ...noStageTimes, [labels!['stage']!]: amount });
    },
  };
  target = await startTarget(slow.target ?? {});
  const at = target.endpoint as { host: string; port: number };
  const relay = slow.networkBytesPerSecond === undefined ? null : await slowRelay(at, slow.networkBytesPerSecond);
  const seams = { ...testSeams(), meter };
  const pool = createRestorePool({ laneCount: 1, laneEntry: lane('restore-lane'), laneData: slow.lane ?? {}, seams });
  const file = path.join(folder, 'restored');
  for (const before of [file, `${file}.cursor`]) await rm(before, { force: true });
  const order = await restoreOrderOf({ endpoint: relay?.endpoint ?? at, file, sizeBytes: SIZE_BYTES }, signal);
  const told: RestoreProgress[] = [];
  try {
    const brakes = slow.brakes ? { brakes: slow.brakes } : {};
    const { stages } = await pool.restoreDisk({
      ...order,
      target: { ...order.target, ...brakes },
      ...(slow.targetSilenceMs === undefined ? {} : { targetSilenceMs: slow.targetSilenceMs }),
      onProgress: (p) => {
        told.push(p);
        onProgress(p);
      },
    });
    expect((await readFile(file)).equals(await readFile(path.join(folder, 'disk')))).toBe(true);
    return { stages, told, metered };
  } finally {
    await pool.close();
    await relay?.close();
  }
}

const brake: BrakeConfig = {
  name: 'datastore ssd',
  readBytesPerSecond: null,
  writeBytesPerSecond: 8 * MIB,
  latencyMs: null,
};
test.each([
  ['source', { target: { readDelayMs: 500 } }],
  ['proxy', { lane: { burnMs: 100 } }],
  ['network', { networkBytesPerSecond: 8 * MIB }],
  ['target', { lane: { writeMs: 150 } }],
  ['target', { lane: { flushMs: 2500 } }],
  ['throttling', { brakes: [brake] }],
  ['throttling', { readBytesPerSecond: 8 * MIB }],
] as [Stage, Slow][])('a slow %s is named: %j', async (stage, slow) => {
  const { readBytesPerSecond } = slow;
  if (readBytesPerSecond !== undefined)
    throttle.configure({
      networks: null,
      repositories: new Map([['main', { readBytesPerSecond, writeBytesPerSecond: null }]]),
    });
  const { stages, told, metered } = await restoreWith(slow);
  console.log(stageLine(stages));
  expect(verdictOf(stages)!.bottleneck).toBe(stage);
  expect(verdictOf(stages)!.shares[stage].busy).toBeGreaterThan(50);
  // Live as at the end, and as the meter counts it.
  expect(told.at(-1)!.stages).toEqual(stages);
  expect(metered).toEqual(stages);
});

test('a brake says which storage is spared from a restore, and why', async () => {
  const { told } = await restoreWith({ brakes: [brake] });
  expect(told.map(({ waitsFor }) => waitsFor)).toContain('brake: datastore ssd is written at 8.0 MiB/s at most');
  const enough = new AbortController();
  const isSaid = ({ waitsFor }: RestoreProgress): boolean =>
    /^brake: latency of datastore ssd is \d+ ms$/.test(waitsFor ?? '');
  const slow = { lane: { writeMs: 60 }, brakes: [{ name: brake.name, readBytesPerSecond: null, latencyMs: 20 }] };
  // Pauses between writes grow all the time: once it is said, that is enough.
  const restoring = restoreWith(slow, enough.signal, (p) => isSaid(p) && enough.abort(new Error('it is said')));
  await expect(restoring).rejects.toThrow('it is said');
});

test('a storage that takes no write any more ends the restore; one that only is held back does not', async () => {
  await expect(restoreWith({ lane: { writeMs: 60_000 }, targetSilenceMs: 500 })).rejects.toMatchObject({
    code: 'UNREACHABLE',
    message: expect.stringMatching(/its target has taken no write for \d+ s/),
  });
  await restoreWith({ brakes: [{ ...brake, writeBytesPerSecond: 4 * MIB }], targetSilenceMs: 2500 });
});

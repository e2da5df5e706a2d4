/** Each stage slowed down in turn: the verdict names it. Which one is largest is asked, never how long anything took. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { BrakeConfig } from '../../schema/domain/configuration.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import type { TransferAssignment } from '../../schema/domain/restore-point.ts';
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
import { slowRelay } from '../../tests/fixtures/mover/slow-relay.ts';
import type { SlowLane, TestDisk } from '../../tests/fixtures/mover/source-lane.ts';
import type { TestTarget } from '../../tests/fixtures/mover/target-lane.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createSourcePool, type TransferProgress } from './source/pool.ts';
import { startMoverTarget } from './target/mover-target.ts';

const MIB = 1024 * 1024;
const SIZE_BYTES = 24 * MIB;
const lane = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);
type Slow = {
  disk?: Partial<TestDisk>;
  lane?: SlowLane;
  target?: Partial<TestTarget>;
  networkBytesPerSecond?: number;
  brakes?: BrakeConfig[];
  sizeBytes?: number;
  assignment?: Partial<TransferAssignment>;
  /** Left out: an empty one. */
  repository?: MemoryRepository;
};

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-bottleneck-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function transferWith(
  slow: Slow,
): Promise<{ stages: StageTimes; told: TransferProgress[]; metered: StageTimes }> {
  const { sizeBytes = SIZE_BYTES } = slow;
  const repository = slow.repository ?? new MemoryRepository(path.join(folder, 'ledger'));
  let metered: StageTimes = { ...noStageTimes };
  const meter = {
    add: (name: string, amount: number, labels?: Record<string, string>) => {
      if (name === 'transfer_stage_ms')
        metered = addStageTimes(metered, { ...noStageTimes, [labels!['stage']!]: amount });
    },
  };
  const seams = { ...testSeams(), meter };
  const target = await startMoverTarget({
    listen: { host: '127.0.0.1', port: 0 },
    laneCount: 1,
    laneEntry: lane('target-lane'),
    laneData: { folder, ...slow.target },
    registrar: repository,
    restoreSource: repository.restoreSource(sizeBytes, MIB),
    seams,
  });
  const at = target.endpoint as { host: string; port: number };
  const relay = slow.networkBytesPerSecond === undefined ? null : await slowRelay(at, slow.networkBytesPerSecond);
  const endpoint: Endpoint = relay?.endpoint ?? at;
  const pool = createSourcePool({ laneCount: 1, laneEntry: lane('source-lane'), laneData: slow.lane, seams });
  const told: TransferProgress[] = [];
  try {
    const disk = { file: path.join(folder, 'disk'), ...slow.disk };
    const order = orderOf({ disk, sizeBytes, blockSize: MIB, compression: 'none', endpoint, ...slow.assignment });
    const access = { ...order.access, ...(slow.brakes ? { brakes: slow.brakes } : {}) };
    const summary = await pool.transfer({ ...order, access, onProgress: (p) => told.push(p) });
    return { stages: summary.stages!, told, metered };
  } finally {
    await pool.close();
    await relay?.close();
    await target.close();
  }
}

test.each([
  ['source', { disk: { delayMs: 500 } }],
  ['proxy', { lane: { burnMs: 100 } }],
  ['network', { networkBytesPerSecond: 8 * MIB }],
  ['target', { target: { syncDelayMs: 4000 } }],
  ['throttling', { brakes: [{ name: 'host h1', readBytesPerSecond: 8 * MIB, latencyMs: null }] }],
] as [Stage, Slow][])('a slow %s is named', async (stage, slow) => {
  await writeRandomDisk(path.join(folder, 'disk'), SIZE_BYTES, seeded().next, 1);
  const { stages, told, metered } = await transferWith(slow);
  console.log(stageLine(stages));
  expect(verdictOf(stages)!.bottleneck).toBe(stage);
  expect(verdictOf(stages)!.shares[stage].busy).toBeGreaterThan(50);
  // Live as at the end, and as the meter counts it.
  expect(told.at(-1)!.stages).toEqual(stages);
  expect(metered).toEqual(stages);
});

class SlowComparison extends MemoryRepository {
  delayMs = 0;

  override async commitSame(...of: Parameters<MemoryRepository['commitSame']>): Promise<boolean> {
    await sleep(this.delayMs);
    return await super.commitSame(...of);
  }
}

/** Of a disk without data; one with a block in each window was there before, where it `differs`. */
async function compareWith(
  of: { windows: number; delayMs: number; differs: boolean } & Pick<Slow, 'networkBytesPerSecond'>,
): Promise<StageTimes> {
  const sizeBytes = of.windows * WINDOW_BYTES;
  const repository = new SlowComparison(path.join(folder, 'ledger'));
  repository.delayMs = of.delayMs;
  const digestOf = (block: number): string => (of.differs && block % 64 === 0 ? '5a' : '00').repeat(32);
  repository.base = new Map(Array.from({ length: sizeBytes / MIB }, (_, block) => [block, digestOf(block)]));
  await writeFile(path.join(folder, 'disk'), '');
  const { networkBytesPerSecond } = of;
  const { stages } = await transferWith({
    sizeBytes,
    repository,
    disk: { allocated: [] },
    assignment: { mode: 'comparison', comparableBytes: sizeBytes },
    ...(networkBytesPerSecond === undefined ? {} : { networkBytesPerSecond }),
  });
  console.log(stageLine(stages));
  expect(repository.windows.size).toBe(of.windows);
  return stages;
}

test('a slow network is named where a disk is compared that is as it was, however many windows it has', async () => {
  // What the target is at work adds up to more than any window takes.
  const stages = await compareWith({ windows: 16, delayMs: 50, differs: false, networkBytesPerSecond: 1024 });
  expect(verdictOf(stages)!.bottleneck).toBe('network');
});

test('a target that is slow to compare is named, also where windows differ and are offered after that', async () => {
  const stages = await compareWith({ windows: 4, delayMs: 300, differs: true });
  expect(verdictOf(stages)!.bottleneck).toBe('target');
});

test('a brake says which storage is spared, and why', async () => {
  // So many reads that some begin when others were found slow.
  const sizeBytes = 64 * MIB;
  await writeRandomDisk(path.join(folder, 'disk'), sizeBytes, seeded().next, 1);
  const ssd = { name: 'datastore ssd', readBytesPerSecond: null, latencyMs: 20 };
  const slow = await transferWith({ disk: { delayMs: 100 }, brakes: [ssd], sizeBytes });
  const reasons = new Set(slow.told.map(({ waitsFor }) => waitsFor ?? ''));
  expect([...reasons].some((reason) => /^brake: latency of datastore ssd is \d+ ms$/.test(reason))).toBe(true);
  const host = { name: 'host h1', readBytesPerSecond: 8 * MIB, latencyMs: null };
  await rm(path.join(folder, 'ledger'));
  const limited = await transferWith({ brakes: [ssd, host] });
  expect(limited.told.map(({ waitsFor }) => waitsFor)).toContain('brake: host h1 is read at 8.0 MiB/s at most');
});

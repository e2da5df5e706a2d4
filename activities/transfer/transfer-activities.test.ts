import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type ApplicationFailure, CancelledFailure } from '@temporalio/common';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { brakesForRestore } from '../../engines/hypervisors/brakes.ts';
import { createRestorePool, type RestorePool } from '../../engines/mover/restore-client/pool.ts';
import { createSourcePool, type SourcePool } from '../../engines/mover/source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { diskKey, hostId, restorePointId, runKey } from '../../schema/domain/ids.ts';
import type { TransferHeartbeat } from '../../schema/domain/sessions.ts';
import { noStageTimes, type StageTimes, verdictOf } from '../../schema/domain/stages.ts';
import { runActivity } from '../../tests/fixtures/activity.ts';
import { orderOf, seeded, TEST_DISK, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import type { TestDisk } from '../../tests/fixtures/mover/source-lane.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { createRestoreActivities, createTargetActivities } from '../restore/restore-activities.ts';
import { createRehearsalActivities, createTransferActivities } from './transfer-activities.ts';

const MIB = 1024 * 1024;
const sizeBytes = 130 * MIB + 512;
const lane = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);
const seams = testSeams();
const { clock } = seams;
const noLimits = { readBytesPerSecond: null, latencyMs: null };

let folder: string;
let disks: string;
let source: string;
let repository: MemoryRepository;
let target: MoverTarget;
let pool: SourcePool;
let restores: RestorePool;
beforeAll(async () => {
  disks = await mkdtemp(path.join(tmpdir(), 'td-td-'));
  source = path.join(disks, 'disk');
  await writeRandomDisk(source, sizeBytes, seeded().next);
});
afterAll(() => rm(disks, { recursive: true, force: true }));
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-ta-'));
  repository = new MemoryRepository(path.join(folder, 'ledger'));
  target = await startMoverTarget({
    listen: { unix: path.join(folder, 'sock', 'mover') },
    laneCount: 2,
    laneEntry: lane('target-lane'),
    laneData: { folder },
    registrar: repository,
    restoreSource: repository.restoreSource(sizeBytes, MIB),
    rehearse: (restorePoint) => {
      if (restorePoint !== restorePointId('0123456789abcdef0123456789abcdef'))
        throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `there is no open restore point ${restorePoint}`);
    },
    seams,
  });
  pool = createSourcePool({ laneCount: 2, laneEntry: lane('source-lane'), seams });
  restores = createRestorePool({ laneCount: 1, laneEntry: lane('restore-lane'), seams });
});
afterEach(async () => {
  await Promise.all([pool.close(), restores.close()]);
  await target.close();
  await rm(folder, { recursive: true, force: true });
});

const transfer = (change: Partial<TestDisk> = {}) => {
  const disk = { file: source, ...change };
  const { access, assignment } = orderOf({ disk, sizeBytes, blockSize: MIB, endpoint: target.endpoint });
  const { transferDisk } = createTransferActivities({ pool, clock });
  return runActivity<Parameters<typeof transferDisk>[0], unknown, TransferHeartbeat>(transferDisk, {
    access,
    assignment,
  });
};

it('transfers a disk with figures in its heartbeats; from there it is restored byte for byte', async () => {
  const sending = transfer({ delayMs: 400 });
  expect(await sending.result).toMatchObject({
    diskKey: TEST_DISK,
    windowCount: 3,
    windowsSent: 3,
    readBytes: sizeBytes,
  });
  expect(sending.beats[0]).toEqual({
    disk: TEST_DISK,
    bytesDone: 0,
    bytesTotal: sizeBytes,
    readBytes: 0,
    sentBytes: 0,
    readRateBytesPerSecond: 0,
    windowsAcked: 0,
    windowCount: 3,
    waitsFor: null,
    stages: noStageTimes,
  });
  expect(verdictOf(sending.beats.at(-1)!.stages!)).toMatchObject({ bottleneck: 'source' });
  expect(Buffer.byteLength(JSON.stringify(sending.beats.at(-1)))).toBeLessThan(1024);
  const run = runKey('restore00000');
  const out = path.join(folder, 'out');
  const braked = {
    provider: 'image' as const,
    hostId: hostId('h1'),
    slots: 1,
    vms: [],
    datastores: [{ name: 'ssd', folder, limits: { ...noLimits, writeBytesPerSecond: 1024 * MIB } }],
  };
  const { createTargets, finishTargets } = createTargetActivities({
    allowedFolders: [folder],
    brakesOf: async (of) => brakesForRestore([braked], of),
  });
  const [made] = await runActivity(createTargets, {
    run,
    folder: out,
    format: 'raw' as const,
    disks: [{ diskKey: TEST_DISK, sizeBytes, name: 'd0.raw' }],
  }).result;
  expect(made!.brakes).toMatchObject([{ name: 'datastore ssd', writeBytesPerSecond: 1024 * MIB }]);
  const { restoreDisk } = createRestoreActivities({ pool: restores, clock });
  const restoring = runActivity<Parameters<typeof restoreDisk>[0], unknown, TransferHeartbeat>(restoreDisk, {
    run,
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    diskKey: TEST_DISK,
    endpoint: target.endpoint,
    target: made!,
  });
  const restored = (await restoring.result) as { stages: StageTimes };
  expect(restored).toMatchObject({ diskKey: TEST_DISK, sizeBytes });
  expect(verdictOf(restored.stages)).not.toBeNull();
  expect(restoring.beats[0]).toMatchObject({ disk: TEST_DISK, bytesTotal: sizeBytes, windowCount: 3 });
  expect(restoring.beats[0]!.stages).toEqual(noStageTimes);
  const finished = await runActivity(finishTargets, { run, folder: out }).result;
  expect(finished).toEqual([{ diskKey: TEST_DISK, file: path.join(out, 'd0.raw') }]);
  expect((await readFile(finished[0]!.file)).equals(await readFile(source))).toBe(true);
}, 60_000);

it('tells a rate while it reads', async () => {
  const sending = transfer({ delayMs: 150 });
  while (!sending.beats.some(({ readRateBytesPerSecond }) => readRateBytesPerSecond > 0)) await clock.sleep(50);
  const beat = sending.beats.at(-1)!;
  expect(beat.readBytes).toBeGreaterThan(0);
  expect(beat.bytesDone).toBeLessThanOrEqual(sizeBytes);
  sending.cancel();
  await expect(sending.result).rejects.toBeInstanceOf(CancelledFailure);
});

it('a worker that is shut down says so, and the next attempt goes on from the cursor', async () => {
  const sending = transfer({ delayMs: 40 });
  while (repository.windows.size === 0) await clock.sleep(20);
  sending.shutDown();
  await expect(sending.result).rejects.toMatchObject({ type: 'HOST_DRAINING', nonRetryable: false });
  const acknowledged = repository.windows.size;
  expect(acknowledged).toBeLessThan(3);
  // How far it came: Temporal keeps no heartbeat of a try that failed.
  const failure = (await sending.result.catch((error: unknown) => error)) as ApplicationFailure;
  expect(failure.details).toMatchObject([{ diskKey: TEST_DISK }, { disk: TEST_DISK, windowCount: 3 }]);
  expect((failure.details![1] as TransferHeartbeat).readBytes).toBeGreaterThan(0);
  expect(await transfer().result).toMatchObject({ windowCount: 3, windowsSent: 3 - acknowledged });
});

it('a restore that is shut down or cancelled ends as such', async () => {
  await transfer().result;
  const file = path.join(folder, 'restored');
  const { restoreDisk } = createRestoreActivities({ pool: restores, clock });
  const run = runKey('restore00000');
  const restore = async () => {
    await writeFile(file, '');
    await truncate(file, sizeBytes);
    return runActivity(restoreDisk, {
      run,
      restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
      diskKey: TEST_DISK,
      endpoint: target.endpoint,
      target: {
        run,
        diskKey: TEST_DISK,
        sizeBytes,
        cursorFile: `${file}.cursor`,
        data: { via: 'file' as const, path: file },
      },
    });
  };
  const first = await restore();
  first.shutDown();
  await expect(first.result).rejects.toMatchObject({ type: 'HOST_DRAINING' });
  const second = await restore();
  second.cancel();
  await expect(second.result).rejects.toBeInstanceOf(CancelledFailure);
});

it('refuses an access to another disk than the one assigned', async () => {
  const { access, assignment } = orderOf({
    disk: { file: source },
    sizeBytes,
    blockSize: MIB,
    endpoint: target.endpoint,
  });
  const { transferDisk } = createTransferActivities({ pool, clock });
  for (const change of [{ diskKey: diskKey('d9') }, { sizeBytes: 1 }, { run: runKey('bbbbbbbbbbbb') }])
    await expect(
      runActivity(transferDisk, { access: { ...access, ...change }, assignment }).result,
    ).rejects.toMatchObject({ type: 'BAD_REQUEST' });
  expect(repository.hello).toBeNull();
});

it('the rehearsal reaches the target, or says why not', async () => {
  const { connectMovers } = createRehearsalActivities();
  const of = {
    restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
    run: runKey('abcdef012345'),
    endpoint: target.endpoint,
  };
  await runActivity(connectMovers, of).result;
  await expect(
    runActivity(connectMovers, { ...of, restorePointId: restorePointId('f'.repeat(32)) }).result,
  ).rejects.toMatchObject({ type: 'RESTORE_POINT_NOT_FOUND' });
  await expect(
    runActivity(connectMovers, { ...of, endpoint: { unix: path.join(folder, 'nobody') } }).result,
  ).rejects.toMatchObject({ type: 'UNREACHABLE' });
});

it('targets outside the allowed folders are refused', async () => {
  const { createTargets, discardTargets } = createTargetActivities({
    allowedFolders: [path.join(folder, 'allowed')],
    brakesOf: async () => ({}),
  });
  const request = {
    run: runKey('restore00000'),
    folder: path.join(folder, 'elsewhere'),
    format: 'raw' as const,
    disks: [{ diskKey: TEST_DISK, sizeBytes: 512, name: 'd0.raw' }],
  };
  await expect(runActivity(createTargets, request).result).rejects.toMatchObject({ type: 'TARGET_NOT_ALLOWED' });
  await runActivity(discardTargets, request).result;
});

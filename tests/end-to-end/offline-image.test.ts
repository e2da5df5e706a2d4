/**
 * Images at rest, from a real qemu-storage-daemon through lanes, a Unix socket and the repository to restored files,
 * without Temporal. What comes back is compared by `cmp` with what `qemu-img` makes of the images.
 */
import { execFile, execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdir, mkdtemp, open, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createFakeFreezer } from '../../engines/hypervisors/contract.ts';
import { createImageProvider } from '../../engines/hypervisors/image/provider.ts';
import type { HypervisorProvider } from '../../engines/hypervisors/provider.ts';
import { rehearse } from '../../engines/mover/rehearse.ts';
import { createRestorePool, type RestorePool } from '../../engines/mover/restore-client/pool.ts';
import type { RestoreProgress } from '../../engines/mover/restore-client/restore-spec.ts';
import { createSourcePool, type SourcePool } from '../../engines/mover/source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import { openRepository } from '../../engines/repository/open-repository.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { openStorage, type StorageDescription } from '../../engines/repository/storage/storage.ts';
import { createTargets, discardTargets, finishTargets, type TargetFormat } from '../../engines/restore/targets.ts';
import type { ImageVmConfig } from '../../schema/domain/configuration.ts';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import type { Checkpoint, VmRef } from '../../schema/domain/hypervisor.ts';
import {
  type DiskKey,
  diskKey,
  hostId,
  jobId,
  lineageOf,
  proxyId,
  repositoryId,
  type RunKey,
  runKeyOf,
  sessionId,
  siteId,
  vmId,
} from '../../schema/domain/ids.ts';
import type {
  DiskPlan,
  ManifestDisk,
  OpenedRestorePoint,
  SealOutcome,
  TransferSummary,
} from '../../schema/domain/restore-point.ts';
import { expectSameBytes } from '../fixtures/oracle.ts';
import { testSeams } from '../fixtures/seams.ts';

process.env['TIDEMARK_LOG'] ??= 'error';
const execute = promisify(execFile);
const MIB = 1024 * 1024;
const repository = repositoryId('main');
const vm: VmRef = { vmId: vmId('22222222-0000-4000-8000-000000000001'), hostId: hostId('img1') };
const seams = testSeams();
const lane = (name: string): URL => new URL(`../../workers/lanes/${name}-lane.ts`, import.meta.url);

/** Odd: not a multiple of a block, nor of 512. Hollow: all holes. Nil: of no bytes. */
const sizes = { odd: 70 * MIB + 777, cow: 8 * WINDOW_BYTES, hollow: 65 * MIB, nil: 0 };
type Key = keyof typeof sizes;

let root: string;
let provider: HypervisorProvider;
let opened: Repository;
let target: MoverTarget;
let source: SourcePool;
let restores: RestorePool;
const imageOf = (key: Key): string => join(root, `${key}.img`);

beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), 'td-off-'));
  await makeImages();
  const disks = (Object.keys(sizes) as Key[]).map((key): ImageVmConfig['disks'][number] => ({
    diskKey: diskKey(key),
    file: imageOf(key),
    format: key === 'cow' ? 'qcow2' : 'raw',
    allowBacking: false,
  }));
  const host = {
    hostId: vm.hostId,
    slots: 1,
    provider: 'image' as const,
    vms: [{ name: 'box', vmId: vm.vmId, disks }],
  };
  provider = createImageProvider({ host, site: siteId('s1'), stateFolder: join(root, 'host'), seams });
  source = createSourcePool({ laneCount: 2, laneEntry: lane('source'), seams });
  restores = createRestorePool({ laneCount: 2, laneEntry: lane('restore'), seams });
  await openSite();
});

afterAll(async () => {
  for await (const artifact of provider.listArtifacts()) await provider.removeArtifact(artifact);
  await provider.close();
  await source.close();
  await restores.close();
  await closeSite();
  await rm(root, { recursive: true, force: true });
});

async function openSite(): Promise<void> {
  const storage: StorageDescription = { kind: 'folder', folder: join(root, 'repository') };
  opened = await openRepository({
    storage: openStorage(storage),
    repositoryId: repository,
    secret: null,
    indexFolder: join(root, 'index'),
    seams,
  });
  target = await startMoverTarget({
    listen: { unix: join(root, 'sock', 'mover') },
    laneCount: 2,
    laneEntry: lane('target'),
    laneData: { storage, keys: null },
    registrar: opened.registrar,
    restoreSource: opened.restoreSource,
    rehearse: (restorePointId, run) => opened.rehearse(restorePointId, run),
    seams,
  });
}

async function closeSite(): Promise<void> {
  await target.close();
  await opened.close();
}

async function makeImages(): Promise<void> {
  for (const key of ['odd', 'hollow', 'nil'] as const) {
    await writeFile(imageOf(key), '');
    await truncate(imageOf(key), sizes[key]);
  }
  execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', imageOf('cow'), String(sizes.cow)]);
  const handle = await open(imageOf('odd'), 'r+');
  await handle.write(randomBytes(9 * MIB), 0, 9 * MIB, 3 * MIB + 100);
  await handle.write(Buffer.from('the very end'), 0, 12, sizes.odd - 12);
  await handle.close();
  // Something in every window, most in the last: a restore has work to be interrupted in.
  for (let window = 0; window < sizes.cow / WINDOW_BYTES; window += 1)
    await writeInCow(window * WINDOW_BYTES + 5 * MIB + 4096, (window < 4 ? 6 : 24) * MIB);
}

let noise = 0;
async function writeInCow(offset: number, length: number): Promise<void> {
  const file = join(root, `noise${(noise += 1)}`);
  await writeFile(file, randomBytes(length));
  await execute('qemu-io', ['-f', 'qcow2', '-c', `write -q -s ${file} ${offset} ${length}`, imageOf('cow')]);
  await rm(file);
}

/** The disk as QEMU reads the image; the odd raw one as it is, since QEMU rounds it up. */
async function rawOf(key: Key, label: string): Promise<string> {
  const file = join(root, `${label}-${key}.raw`);
  if (key === 'cow') await execute('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', imageOf(key), file]);
  else await execute('cp', ['--sparse=always', imageOf(key), file]);
  return file;
}

type Session = { sealed: SealOutcome; transfers: Map<DiskKey, TransferSummary> };

function planOf(disk: Checkpoint['disks'][number], { compareWith }: Omit<OpenedRestorePoint, 'endpoint'>): DiskPlan {
  const { diskKey, sizeBytes, identity, verdict } = disk;
  const common = { diskKey, sizeBytes, identity, reason: verdict.reason };
  const base = compareWith?.disks.some((one) => one.diskKey === diskKey) ? compareWith.restorePointId : null;
  return { ...common, mode: base === null ? 'full' : 'comparison', baseRestorePointId: base };
}

/** What the workflow says, said by hand. */
async function backUp(number: number): Promise<Session> {
  const run = runKeyOf(`session ${number}`);
  const lineage = lineageOf(jobId('nightly'), vm.vmId, repository);
  const nominalTime = new Date(Date.UTC(2026, 10, number)).toISOString();
  const common = { run, lineage, vm, vmName: 'box', jobId: jobId('nightly'), sessionId: sessionId(`s${number}`) };
  const point = await opened.openRestorePoint({ ...common, nominalTime, blockSize: MIB, compression: 'balanced' });
  const { restorePointId } = point;
  await rehearse({ restorePointId, run, endpoint: target.endpoint });
  const facts = await provider.inspectVm(vm);
  await opened.declareDisks({ restorePointId, run, disks: facts.disks });
  const keys = facts.disks.map((disk) => disk.diskKey);
  const checkpoint = await provider.createCheckpoint(
    { run, vm, lineage, disks: keys, base: null, consistency: 'none' },
    createFakeFreezer(),
  );
  const sent = await Promise.all(checkpoint.disks.map((disk) => transfer(point, run, disk)));
  await provider.closeAccess(run);
  await provider.releaseCheckpoint(run);
  const sealed = await opened.seal({
    restorePointId,
    run,
    takenAt: checkpoint.takenAt,
    referencePoint: null,
    consistency: { asked: 'none', reached: checkpoint.reached, frozenMs: null },
    warnings: [],
    leftOut: checkpoint.leftOut,
    transfers: sent,
  });
  return { sealed, transfers: new Map(sent.map((summary) => [summary.diskKey, summary])) };
}

async function transfer(
  point: Omit<OpenedRestorePoint, 'endpoint'>,
  run: RunKey,
  disk: Checkpoint['disks'][number],
): Promise<TransferSummary> {
  const { restorePointId } = point;
  const plan = planOf(disk, point);
  const given = await opened.assignTransfer({ restorePointId, run, disk: plan, checkpoint: run, assignment: 1 });
  const assignment = { ...given, endpoint: target.endpoint };
  const access = await provider.openAccess(run, disk.diskKey, proxyId('p1'));
  return source.transfer({ access, assignment, signal: new AbortController().signal });
}

type RestoreOf = { key: Key; format: TargetFormat; signal?: AbortSignal; onProgress?: (p: RestoreProgress) => void };

async function restoreOnce({ sealed }: Session, run: RunKey, of: RestoreOf) {
  const folder = join(root, `out-${run}`);
  await mkdir(folder, { recursive: true });
  const key = diskKey(of.key);
  const disks = [{ diskKey: key, sizeBytes: sizes[of.key], name: 'disk' }];
  const [access] = await createTargets({ run, folder, allowedFolders: [root], format: of.format, disks });
  const signal = of.signal ?? new AbortController().signal;
  const { restorePointId } = sealed;
  const order = { run, restorePointId, diskKey: key, endpoint: target.endpoint, target: access!, signal };
  return restores.restoreDisk({ ...order, ...(of.onProgress ? { onProgress: of.onProgress } : {}) });
}

let restoreCount = 0;
const restoreRun = (): RunKey => runKeyOf(`restore ${(restoreCount += 1)}`);

async function restored(session: Session, key: Key, format: TargetFormat): Promise<string> {
  const run = restoreRun();
  await restoreOnce(session, run, { key, format });
  const [finished] = await finishTargets({ run, folder: join(root, `out-${run}`) });
  return finished!.file;
}

const diskOf = ({ sealed }: Session, key: Key): ManifestDisk =>
  sealed.manifest.disks.find((disk) => disk.diskKey === diskKey(key))!;

describe('images at rest', () => {
  let full: Session;
  let second: Session;
  const before = {} as Record<Key, string>;
  const after = {} as Record<Key, string>;

  test('a full of all disks is sealed and conserved; a disk of no bytes is left out and said so', async () => {
    for (const key of ['odd', 'cow', 'hollow'] as const) before[key] = await rawOf(key, 'before');
    full = await backUp(1);
    const { manifest } = full.sealed;
    const modes = Object.fromEntries(manifest.disks.map((disk) => [disk.diskKey, [disk.mode, disk.sizeBytes]]));
    expect(modes).toEqual({ cow: ['full', sizes.cow], hollow: ['full', sizes.hollow], odd: ['full', sizes.odd] });
    expect(manifest.leftOut).toMatchObject([{ diskKey: 'nil', why: { code: 'BAD_DISK' } }]);
    for (const disk of manifest.disks) {
      const { sizeBytes, ...classes } = disk.conservation;
      expect(Object.values(classes).reduce((sum, bytes) => sum + bytes, 0)).toBe(sizeBytes);
    }
    // 9 MiB from 3 MiB + 100 on touch 10 blocks; the short last block holds the end.
    expect(diskOf(full, 'odd').conservation).toMatchObject({ storedBytes: 10 * MIB + 777, unchangedBytes: 0 });
    expect(diskOf(full, 'hollow').conservation.storedBytes).toBe(0);
    expect(full.transfers.get(diskKey('hollow'))).toMatchObject({ readBytes: 0, sentBytes: 0 });
  });

  test.each([
    ['odd', 'raw'],
    ['cow', 'raw'],
    ['hollow', 'raw'],
  ] as const)('%s comes back as a %s file, byte for byte and sparse', async (key, format) => {
    const file = await restored(full, key, format);
    await expectSameBytes(file, before[key]);
    expect((await stat(file)).blocks * 512).toBeLessThan(sizes[key] / 2);
  });

  test('cow comes back as a qcow2 image with the same content', async () => {
    const file = await restored(full, 'cow', 'qcow2');
    await execute('qemu-img', ['compare', '-f', 'qcow2', '-F', 'raw', file, before.cow]);
    const raw = join(root, 'from-qcow2.raw');
    await execute('qemu-img', ['convert', '-f', 'qcow2', '-O', 'raw', file, raw]);
    await expectSameBytes(raw, before.cow);
  });

  test('a second session compares digests and sends what changed only', async () => {
    await writeInCow(2 * WINDOW_BYTES, 3 * MIB);
    await writeInCow(7 * WINDOW_BYTES + 63 * MIB + 512, 512);
    const handle = await open(imageOf('odd'), 'r+');
    await handle.write(Buffer.from('another end'), 0, 11, sizes.odd - 11);
    await handle.close();
    // The repository's process is another one by now.
    await closeSite();
    await openSite();
    for (const key of ['odd', 'cow', 'hollow'] as const) after[key] = await rawOf(key, 'after');
    second = await backUp(2);
    const sent = (key: Key): number => second.transfers.get(diskKey(key))!.sentBytes;
    for (const key of ['odd', 'cow', 'hollow'] as const)
      expect(diskOf(second, key)).toMatchObject({ mode: 'comparison', baseRoot: diskOf(full, key).root });
    expect(diskOf(second, 'cow').conservation).toMatchObject({
      storedBytes: 4 * MIB,
      deduplicatedBytes: 0,
      unchangedBytes: sizes.cow - 4 * MIB,
    });
    expect(diskOf(second, 'odd').conservation).toMatchObject({ storedBytes: 777, unchangedBytes: sizes.odd - 777 });
    expect(diskOf(second, 'hollow').root).toBe(diskOf(full, 'hollow').root);
    expect([sent('cow') <= 4 * MIB, sent('cow') > 3 * MIB, sent('odd') <= 777, sent('hollow')]).toEqual([
      true,
      true,
      true,
      0,
    ]);
  });

  test('both restore points come back, each as its disks were then', async () => {
    for (const key of ['odd', 'cow'] as const) {
      await expectSameBytes(await restored(second, key, 'raw'), after[key]);
      await expectSameBytes(await restored(full, key, 'raw'), before[key]);
    }
  });

  test.each(['raw', 'qcow2'] as const)(
    'a restore to %s that is interrupted goes on from its cursor',
    async (format) => {
      const run = restoreRun();
      const folder = join(root, `out-${run}`);
      const stop = new AbortController();
      const reason = new Error('stopped by the test');
      const first = restoreOnce(second, run, {
        key: 'cow',
        format,
        signal: stop.signal,
        onProgress: ({ bytesDone }) => bytesDone >= 4 * WINDOW_BYTES && stop.abort(reason),
      });
      await expect(first).rejects.toBe(reason);
      expect(await finishedNames(folder)).toEqual([]);
      const summary = await restoreOnce(second, run, { key: 'cow', format });
      expect(summary.windowsRestored).toBeLessThanOrEqual(4);
      const [finished] = await finishTargets({ run, folder });
      await execute('qemu-img', ['compare', '-f', format, '-F', 'raw', finished!.file, after.cow]);
      await discardTargets({ run, folder });
      expect(await finishedNames(folder)).toEqual(['disk']);
    },
  );

  /** What looks like a disk: neither partial nor hidden. */
  async function finishedNames(folder: string): Promise<string[]> {
    const { stdout } = await execute('ls', [folder]);
    return stdout.split('\n').filter((name) => name !== '' && !name.endsWith('.partial'));
  }
});

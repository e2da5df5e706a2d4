/** Scratch space that is too small, over its limit, or full: the guest goes on, and the run says the truth. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import type { Checkpoint, CheckpointSpec, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import { diskKey, hostId, lineageId, proxyId, runKey, siteId, vmId } from '../../../schema/domain/ids.ts';
import { type Guest, startGuest, whyNoGuest } from '../../../tests/fixtures/guest/start-guest.ts';
import { openTestAgent, type TestAgent } from '../../../tests/fixtures/guest/test-agent.ts';
import { keyed, KIB, makeQemuWorld, MIB, type QemuWorld, runOf, usesOf } from '../../../tests/fixtures/qemu-world.ts';
import { openRawMonitor, type RawMonitor } from '../../../tests/fixtures/raw-monitor.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { mountSmallDisk, type SmallDisk, whyNoSmallDisk } from '../../../tests/fixtures/small-disk.ts';
import { connectKeeper, type KeeperClient } from '../../guest/keeper/client.ts';
import { type GuestKeeper, startGuestKeeper } from '../../guest/keeper/guest-keeper.ts';
import { openReader } from '../open-reader.ts';
import type { HypervisorProvider } from '../provider.ts';
import { createQemuProvider } from './provider.ts';

const noSmallDisk = whyNoSmallDisk();
const noGuest = await whyNoGuest();
const because = (why: string | null): string => (why === null ? '' : ` (left out: ${why})`);
const tracked = ['changes TRACKED', 'changes TRACKED'];
const SCRATCH_FULL = { code: 'SCRATCH_FULL' };
const reader = proxyId('p1');

describe('scratch space too small to begin', () => {
  let world: QemuWorld;
  afterEach(() => world.close());

  const expectRefused = async (): Promise<void> => {
    const spec = world.spec(1, null, { consistency: 'require' });
    await expect(world.create(spec)).rejects.toMatchObject(SCRATCH_FULL);
    expect(world.freezer.calls).toEqual([]);
    expect(await world.listed()).toEqual([]);
    expect(await world.bitmaps()).toEqual({});
    expect(await world.provider.findCheckpoint(runOf(1))).toBeNull();
  };

  it('by its limit: nothing is begun, and the guest is not touched', async () => {
    world = await makeQemuWorld({ maxBytes: 2 * MIB - 1 });
    await expectRefused();
  });

  it('by what other runs of this site take of it', async () => {
    world = await makeQemuWorld({ maxBytes: 4 * MIB });
    await world.session(2, null);
    const theirs = join(world.scratch, 'td-s2-abcdefghijkl-flc0.qcow2');
    const ours = join(world.scratch, 'td-s1-abcdefghijkl-flc0.qcow2');
    await writeFile(theirs, Buffer.alloc(3 * MIB, 'x'));
    await world.create(world.spec(3));
    await world.provider.releaseCheckpoint(runOf(3));
    await writeFile(ours, Buffer.alloc(3 * MIB, 'x'));
    await expect(world.create(world.spec(4))).rejects.toMatchObject({
      ...SCRATCH_FULL,
      message: expect.stringContaining(`limit ${4 * MIB}`),
    });
    expect((await readdir(world.scratch)).sort()).toEqual(
      [ours, theirs].map((file) => file.slice(world.scratch.length + 1)),
    );
  });

  it.skipIf(noSmallDisk)(`by the file system it lies on${because(noSmallDisk)}`, async () => {
    const small = mountSmallDisk(1)!;
    try {
      world = await makeQemuWorld({ scratch: small.folder });
      await expectRefused();
      expect(await readdir(small.folder)).toEqual([]);
    } finally {
      small.remove();
    }
  });
});

describe('scratch space over its limit', () => {
  let world: QemuWorld;
  afterEach(() => world.close());

  it.each(['the worker that took it', 'the worker after a restart'])(
    'the checkpoint is given up by %s, and costs no tracking',
    async (which) => {
      world = await makeQemuWorld({ maxBytes: 3 * MIB });
      const much = { offset: 64 * KIB, length: 4 * MIB };
      await world.write('d1', much);
      const first = await world.sealedOnce();
      await world.create(world.spec(2, first.point));
      await world.provider.openAccess(runOf(2), keyed('d1'), reader);
      if (which !== 'the worker that took it') {
        await world.provider.close();
        world.restartWorker();
      }
      await world.write('d1', much);
      const exports = () => world.machine.monitor.execute('query-block-exports');
      await expect.poll(exports, { timeout: 20_000 }).toEqual([]);
      await expect(world.provider.openAccess(runOf(2), keyed('d1'), reader)).rejects.toMatchObject(SCRATCH_FULL);
      for (const _ of [1, 2])
        await expect(world.provider.releaseCheckpoint(runOf(2))).rejects.toMatchObject(SCRATCH_FULL);
      expect(await readdir(world.scratch)).toEqual([]);
      await world.provider.discardReferencePoint(runOf(2));
      await world.expectOnly(first);
      await world.write('d1', { offset: 0, length: 64 * KIB });
      expect(usesOf(await world.session(3, first))).toEqual(tracked);
    },
  );
});

const why = noGuest ?? noSmallDisk;
describe.skipIf(why !== null)(`scratch space full while a real guest writes${because(why)}`, () => {
  // An emulated guest, on a machine that may have other work.
  vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });
  const seams = testSeams();
  const site = siteId('s1');
  const vm = { vmId: vmId('55555555-5555-4555-8555-555555555555'), hostId: hostId('h1') };
  const lineage = lineageId('00000000000000aa');
  let folder: string;
  let small: SmallDisk;
  let guest: Guest;
  let keeper: GuestKeeper;
  let client: KeeperClient;
  let monitor: RawMonitor;
  let agent: TestAgent;
  let base: ReferencePoint;
  let atBase: Buffer;

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'td-qf-'));
    small = mountSmallDisk(4)!;
    const disks = [{ key: 'data', file: join(folder, 'data'), format: 'qcow2' as const, sizeBytes: 40 * MIB }];
    guest = await startGuest({ folder, disks });
    const socket = join(folder, 'keeper.sock');
    const kept = { vmId: vm.vmId, qmp: guest.qmpSocket, agent: guest.agentSocket, site };
    const loadVms = () => Promise.resolve([kept]);
    keeper = await startGuestKeeper({ socket, stateFolder: join(folder, 'keeper'), loadVms, seams });
    client = connectKeeper({ socket, seams });
    monitor = await openRawMonitor(guest.testQmpSocket);
    agent = await openTestAgent(guest.testAgentSocket);
    await overwrite();
    const provider = worker(join(folder, 'scratch'));
    await provider.createCheckpoint(spec('1'), client.freezer);
    atBase = await readWhole(provider, '1');
    await provider.closeAccess(spec('1').run);
    base = (await provider.releaseCheckpoint(spec('1').run)).referencePoint!;
    await provider.commitReferencePoint(lineage, base);
    await provider.close();
  });
  afterAll(async () => {
    agent?.close();
    monitor?.close();
    client?.close();
    await keeper?.stop(1000);
    await guest?.kill();
    small?.remove();
    await rm(folder, { recursive: true, force: true });
  });

  const worker = (scratch: string): HypervisorProvider =>
    createQemuProvider({
      host: {
        hostId: vm.hostId,
        slots: 1,
        provider: 'qemu',
        scratch: { folder: scratch, maxBytes: 256 * MIB },
        vms: [{ name: 'v1', vmId: vm.vmId, qmp: guest.qmpSocket, agent: guest.agentSocket }],
      },
      site,
      stateFolder: join(folder, 'state'),
      monitorOf: (id) => client.monitor(id),
      seams,
    });
  const spec = (run: string): CheckpointSpec => ({
    run: runKey(run.padEnd(12, '0')),
    vm,
    lineage,
    disks: [diskKey('data')],
    base: base ?? null,
    consistency: 'prefer',
  });
  const readWhole = async (provider: HypervisorProvider, run: string): Promise<Buffer> => {
    const opened = await openReader(await provider.openAccess(spec(run).run, diskKey('data'), reader), seams);
    const bytes = Buffer.alloc(opened.sizeBytes, 0xee);
    await opened.read({ offset: 0, length: bytes.length }, bytes, new AbortController().signal);
    await opened.close();
    return bytes;
  };
  /** More than there is room to keep the old content of. */
  const overwrite = (): Promise<unknown> =>
    agent.run('dd if=/dev/urandom of=/mnt/data/much bs=1M count=20 conv=notrunc; sync');
  const listed = async (provider: HypervisorProvider): Promise<string[]> => {
    const all: string[] = [];
    for await (const { platformName } of provider.listArtifacts()) all.push(platformName);
    return all.sort();
  };
  const expectGone = async (provider: HypervisorProvider, run: string): Promise<void> => {
    await provider.discardReferencePoint(spec(run).run);
    expect(await listed(provider)).toEqual(base.disks.map(({ trackingId }) => trackingId));
    expect(await readdir(small.folder)).toEqual([]);
    expect(await monitor.execute('query-jobs')).toEqual([]);
    expect(await monitor.execute('query-block-exports')).toEqual([]);
  };

  it('the guest goes on, the readers are cut off, the run fails truthfully, nothing is left', async () => {
    const provider = worker(small.folder);
    await provider.createCheckpoint(spec('2'), client.freezer);
    const access = await provider.openAccess(spec('2').run, diskKey('data'), reader);
    const opened = await openReader(access, seams);
    await overwrite();
    expect(await monitor.execute('query-status')).toMatchObject({ status: 'running' });
    const late = opened.read({ offset: 0, length: 4096 }, new Uint8Array(4096), new AbortController().signal);
    await expect(late).rejects.toThrow();
    await opened.close();
    await expect.poll(() => provider.findCheckpoint(spec('2').run), { timeout: 10_000 }).toBeNull();
    await provider.closeAccess(spec('2').run);
    await expect(provider.releaseCheckpoint(spec('2').run)).rejects.toMatchObject(SCRATCH_FULL);
    await expectGone(provider, '2');
    await provider.close();
  });

  it('also while no worker lives: the next one can tell', async () => {
    const first = worker(small.folder);
    await first.createCheckpoint(spec('3'), client.freezer);
    await first.close();
    await overwrite();
    expect(await monitor.execute('query-status')).toMatchObject({ status: 'running' });
    const provider = worker(small.folder);
    await expect(provider.openAccess(spec('3').run, diskKey('data'), reader)).rejects.toMatchObject({
      code: 'CHECKPOINT_LOST',
    });
    await expect(provider.releaseCheckpoint(spec('3').run)).rejects.toMatchObject({ code: 'CHECKPOINT_LOST' });
    await expectGone(provider, '3');
    await provider.close();
  });

  it('and the next increment misses nothing', async () => {
    const provider = worker(join(folder, 'scratch'));
    const checkpoint: Checkpoint = await provider.createCheckpoint(spec('4'), client.freezer);
    expect(checkpoint.disks.map(({ verdict }) => verdict.use)).toEqual(['changes']);
    const whole = await readWhole(provider, '4');
    expect(whole.equals(atBase)).toBe(false);
    const opened = await openReader(await provider.openAccess(spec('4').run, diskKey('data'), reader), seams);
    for await (const { offset, length } of opened.changedExtents({ offset: 0, length: opened.sizeBytes }))
      whole.copy(atBase, offset, offset, offset + length);
    await opened.close();
    expect(whole.equals(atBase)).toBe(true);
    await provider.releaseCheckpoint(spec('4').run);
    await provider.discardReferencePoint(spec('4').run);
    await provider.close();
  });
});

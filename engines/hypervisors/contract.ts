/** The one suite that every provider passes. Called from the provider's own test file with a way to make its world. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { endOf, type Extent, totalBytes } from '../../schema/domain/extents.ts';
import type {
  Artifact,
  Capabilities,
  Checkpoint,
  CheckpointSpec,
  ReferencePoint,
  VmRef,
} from '../../schema/domain/hypervisor.ts';
import {
  diskKey,
  type DiskKey,
  lineageId,
  proxyId,
  type RunKey,
  runKey,
  type SiteId,
  vmId,
} from '../../schema/domain/ids.ts';
import type { DiskReader, Seams } from '../../schema/domain/seams.ts';
import { openReader } from './open-reader.ts';
import type { Freezer, HypervisorProvider } from './provider.ts';

/** One VM on one platform, fresh for each test. Disks: at least two, of a few MiB. */
export type ProviderWorld = {
  provider: HypervisorProvider;
  site: SiteId;
  vm: VmRef;
  disks: readonly DiskKey[];
  seams: Seams;
  freezer: FakeFreezer;
  /** Whether disks can change while a checkpoint is held. */
  changesWhileHeld: boolean;
  /** 'off': nobody could be frozen. Default 'on'. */
  guest?: 'on' | 'off';
  /** Writes pseudo-random bytes of this seed, as the guest would. */
  scribble(disk: DiskKey, extent: Extent, seed: number): Promise<void>;
  /** What the disk holds now, taken another way than through the provider. */
  bytesNow(disk: DiskKey): Promise<Uint8Array>;
  /** A provider of the same host as after the worker's restart; the world closes it. */
  reopen(): Promise<HypervisorProvider>;
  /** A provider of another site on the same platform and VM; the world closes it. */
  otherSite(): Promise<HypervisorProvider>;
  close(): Promise<void>;
};

export type FakeFreezer = Freezer & {
  frozen: boolean;
  /** Verbs in the order of their calls. */
  calls: ('freeze' | 'thaw')[];
  failWith: TidemarkError | null;
};

export function createFakeFreezer(): FakeFreezer {
  const fake: FakeFreezer = {
    frozen: false,
    calls: [],
    failWith: null,
    async freeze() {
      fake.calls.push('freeze');
      if (fake.failWith) throw fake.failWith;
      fake.frozen = true;
      return await Promise.resolve({ fileSystems: 1 });
    },
    isFrozen: async () => await Promise.resolve(fake.frozen),
    async thaw() {
      fake.calls.push('thaw');
      const byUs = fake.frozen;
      fake.frozen = false;
      return await Promise.resolve({ fileSystems: byUs ? 1 : 0, byUs, frozenMs: 1 });
    },
  };
  return fake;
}

const reader = proxyId('p1');
const lineage = lineageId('00000000000000aa');
const runOf = (index: number): RunKey => runKey(`contractrun${index}`);
const KIB = 1024;

type Held = { world: ProviderWorld; capabilities: Capabilities };

/** `makeWorld` makes a world for one test; the suite closes it. */
export function providerContract(name: string, makeWorld: () => Promise<ProviderWorld>): void {
  describe(`provider contract: ${name}`, () => {
    const held = {} as Held;
    beforeEach(async () => {
      held.world = await makeWorld();
      held.capabilities = await held.world.provider.capabilities();
    });
    afterEach(async () => {
      await held.world.close();
    });
    inspection(held);
    checkpoints(held);
    tracking(held);
    guests(held);
    artifacts(held);
  });
}

const specOf = (world: ProviderWorld, index: number, over: Partial<CheckpointSpec> = {}): CheckpointSpec => ({
  run: runOf(index),
  vm: world.vm,
  lineage,
  disks: [...world.disks],
  base: null,
  consistency: 'none',
  ...over,
});

const create = (world: ProviderWorld, spec: CheckpointSpec): Promise<Checkpoint> =>
  world.provider.createCheckpoint(spec, world.freezer);

async function withReader<T>(
  world: ProviderWorld,
  run: RunKey,
  disk: DiskKey,
  use: (opened: DiskReader) => Promise<T>,
): Promise<T> {
  const access = await world.provider.openAccess(run, disk, reader);
  // Access is plain data: it crosses machines.
  const opened = await openReader(JSON.parse(JSON.stringify(access)) as typeof access, world.seams);
  try {
    return await use(opened);
  } finally {
    await opened.close();
  }
}

const readAll = (world: ProviderWorld, run: RunKey, disk: DiskKey): Promise<Uint8Array> =>
  withReader(world, run, disk, async (opened) => {
    const bytes = new Uint8Array(opened.sizeBytes).fill(0xee);
    await opened.read({ offset: 0, length: bytes.length }, bytes, new AbortController().signal);
    return bytes;
  });

async function listed(provider: HypervisorProvider): Promise<Artifact[]> {
  const all: Artifact[] = [];
  for await (const artifact of provider.listArtifacts()) all.push(artifact);
  return all;
}

const refused = (work: Promise<unknown>, code: string): Promise<void> => expect(work).rejects.toMatchObject({ code });
const sameBytes = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

async function release(world: ProviderWorld, index: number): Promise<ReferencePoint | null> {
  await world.provider.closeAccess(runOf(index));
  return (await world.provider.releaseCheckpoint(runOf(index))).referencePoint;
}

function inspection(held: Held): void {
  it('lists the VM and says the same of it twice', async () => {
    const { provider, vm, disks } = held.world;
    const vms = [];
    for await (const one of provider.listVms()) vms.push(one.vm.vmId);
    expect(vms).toContain(vm.vmId);
    const facts = await provider.inspectVm(vm);
    expect(facts.disks.map((disk) => disk.diskKey)).toEqual(expect.arrayContaining([...disks]));
    expect(await provider.inspectVm(vm)).toEqual(facts);
    expect(await provider.capabilities()).toEqual(held.capabilities);
  });

  it('knows no other VM', async () => {
    const { world } = held;
    const stranger = { ...world.vm, vmId: vmId('00000000-0000-4000-8000-00000000dead') };
    await refused(world.provider.inspectVm(stranger), 'VM_NOT_FOUND');
    await refused(world.provider.judgeBase(stranger, null), 'VM_NOT_FOUND');
    await refused(create(world, specOf(world, 1, { vm: stranger })), 'VM_NOT_FOUND');
    expect(await listed(world.provider)).toEqual([]);
  });

  it('never reads changes since a reference point it does not have', async () => {
    const { provider, vm, disks } = held.world;
    const facts = await provider.inspectVm(vm);
    const invented = facts.disks.map(({ diskKey, identity, sizeBytes }) => {
      return { diskKey, trackingId: 'td-none-nevermade000-bm0', identity, sizeBytes };
    });
    const base = { run: runKey('nevermade000'), lineage, platformId: 'none', disks: invented };
    for (const given of [null, base]) {
      const verdicts = await provider.judgeBase(vm, given);
      expect(verdicts.map((one) => one.diskKey)).toEqual(expect.arrayContaining([...disks]));
      expect(verdicts.map((one) => one.use)).not.toContain('changes');
      expect(verdicts.every(({ reason }) => reason.code !== '' && reason.message !== '')).toBe(true);
    }
  });
}

function checkpoints(held: Held): void {
  it('takes one checkpoint per run, finds it again, also after a restart', async () => {
    const { world } = held;
    const { run } = specOf(world, 1);
    expect(await world.provider.findCheckpoint(run)).toBeNull();
    const checkpoint = await create(world, specOf(world, 1));
    expect(checkpoint.disks.map((disk) => disk.diskKey)).toEqual([...world.disks]);
    expect(await create(world, specOf(world, 1))).toEqual(checkpoint);
    expect(await world.provider.findCheckpoint(run)).toEqual(checkpoint);
    const [first] = world.disks;
    const access = await world.provider.openAccess(run, first!, reader);
    const again = await world.reopen();
    expect(await again.findCheckpoint(run)).toEqual(checkpoint);
    expect(await again.openAccess(run, first!, reader)).toEqual(access);
  });

  it('shows every disk as it was at the instant, whole', async () => {
    const { world } = held;
    const before = new Map<DiskKey, Uint8Array>();
    for (const [index, disk] of world.disks.entries()) {
      await world.scribble(disk, { offset: 64 * KIB, length: 100 * KIB }, 100 + index);
      before.set(disk, await world.bytesNow(disk));
    }
    await create(world, specOf(world, 1));
    for (const disk of world.disks) {
      if (world.changesWhileHeld) await world.scribble(disk, { offset: 80 * KIB, length: 600 * KIB }, 7);
      expect(sameBytes(await readAll(world, runOf(1), disk), before.get(disk)!), `bytes of ${disk}`).toBe(true);
      await expectAllocationTrue(world, disk, before.get(disk)!);
    }
  });

  it('releases once and for all', async () => {
    const { world } = held;
    await create(world, specOf(world, 1));
    const released = await world.provider.releaseCheckpoint(runOf(1));
    expect(await world.provider.releaseCheckpoint(runOf(1))).toEqual(released);
    expect(await world.provider.findCheckpoint(runOf(1))).toBeNull();
    await refused(world.provider.openAccess(runOf(1), world.disks[0]!, reader), 'CHECKPOINT_LOST');
    await world.provider.awaitMerge(runOf(1), new AbortController().signal);
    expect((await listed(world.provider)).filter(({ kind }) => kind === 'temporary')).toEqual([]);
    await world.provider.discardReferencePoint(runOf(1));
    expect(await listed(world.provider)).toEqual([]);
  });

  it('takes what was never there for gone already', async () => {
    const { provider } = held.world;
    expect((await provider.releaseCheckpoint(runOf(9))).referencePoint).toBeNull();
    await provider.closeAccess(runOf(9));
    await provider.discardReferencePoint(runOf(9));
    expect(await provider.findCheckpoint(runOf(9))).toBeNull();
  });

  it('leaves out a disk that the VM does not have, and says so', async () => {
    const { world } = held;
    const missing = diskKey('no-such-disk');
    const checkpoint = await create(world, specOf(world, 1, { disks: [world.disks[0]!, missing] }));
    expect(checkpoint.disks.map((disk) => disk.diskKey)).toEqual([world.disks[0]]);
    expect(checkpoint.leftOut.map((one) => one.diskKey)).toEqual([missing]);
    await refused(world.provider.openAccess(runOf(1), missing, reader), 'NOT_FOUND');
  });
}

/** Allocation covers the disk without a gap, and what it calls zero or unallocated reads as zero. */
async function expectAllocationTrue(world: ProviderWorld, disk: DiskKey, bytes: Uint8Array): Promise<void> {
  await withReader(world, runOf(1), disk, async (opened) => {
    let at = 0;
    for await (const extent of opened.allocatedExtents({ offset: 0, length: opened.sizeBytes })) {
      expect(extent.offset).toBe(at);
      at = endOf(extent);
      if (extent.state === 'data') continue;
      const part = bytes.subarray(extent.offset, at);
      expect(sameBytes(part, new Uint8Array(part.length)), `${disk}: ${extent.state} at ${extent.offset}`).toBe(true);
    }
    expect(at).toBe(bytes.length);
  });
}

/** Every byte that differs lies in a changed extent, and not everything is called changed. */
async function expectChanges(
  world: ProviderWorld,
  index: number,
  before: Map<DiskKey, Uint8Array>,
  after: Map<DiskKey, Uint8Array>,
): Promise<void> {
  for (const disk of world.disks) {
    await withReader(world, runOf(index), disk, async (opened) => {
      const changed: Extent[] = [];
      for await (const extent of opened.changedExtents({ offset: 0, length: opened.sizeBytes })) changed.push(extent);
      const rebuilt = Uint8Array.from(before.get(disk)!);
      for (const { offset, length } of changed)
        await opened.read({ offset, length }, rebuilt.subarray(offset, offset + length), new AbortController().signal);
      expect(sameBytes(rebuilt, after.get(disk)!), `base and changes of ${disk}`).toBe(true);
      expect(totalBytes(changed)).toBeLessThan(opened.sizeBytes / 2);
    });
  }
}

async function allBytes(world: ProviderWorld): Promise<Map<DiskKey, Uint8Array>> {
  const all = new Map<DiskKey, Uint8Array>();
  for (const disk of world.disks) all.set(disk, await world.bytesNow(disk));
  return all;
}

async function scribbleAll(world: ProviderWorld, seed: number): Promise<void> {
  for (const [index, disk] of world.disks.entries()) {
    await world.scribble(disk, { offset: (128 + 320 * index) * KIB, length: 70 * KIB }, seed + index);
    await world.scribble(disk, { offset: (700 + seed) * KIB + 512, length: 9 * KIB }, seed + 10 + index);
  }
}

/** Writes while the checkpoint is held; where that cannot be, when it is not. */
async function releaseAndScribble(world: ProviderWorld, index: number): Promise<ReferencePoint | null> {
  if (world.changesWhileHeld) await scribbleAll(world, index);
  const point = await release(world, index);
  if (!world.changesWhileHeld) await scribbleAll(world, index);
  return point;
}

const usesOf = (checkpoint: Checkpoint): string[] => checkpoint.disks.map(({ verdict }) => verdict.use);
const runsOf = (all: readonly Artifact[]): RunKey[] => all.map(({ run }) => run).sort();

function tracking(held: Held): void {
  it('says what changed since a base, also when the session between was discarded', async (context) => {
    context.skip(held.capabilities.tracking === 'none', 'the platform tracks no changes');
    const { world } = held;
    const atBase = await allBytes(world);
    await create(world, specOf(world, 1));
    const base = await releaseAndScribble(world, 1);
    expect(base?.run).toBe(runOf(1));
    await world.provider.commitReferencePoint(lineage, base!);

    const second = await allBytes(world);
    expect(usesOf(await create(world, specOf(world, 2, { base })))).toEqual(world.disks.map(() => 'changes'));
    if (world.changesWhileHeld) await scribbleAll(world, 21);
    await expectChanges(world, 2, atBase, second);
    await releaseAndScribble(world, 2);
    await world.provider.discardReferencePoint(runOf(2));
    await world.provider.discardReferencePoint(runOf(2));

    const third = await allBytes(world);
    expect(usesOf(await create(world, specOf(world, 3, { base })))).toEqual(world.disks.map(() => 'changes'));
    await expectChanges(world, 3, atBase, third);
    const kept = await release(world, 3);
    await world.provider.commitReferencePoint(lineage, kept!);
    await world.provider.commitReferencePoint(lineage, kept!);
    const left = await listed(world.provider);
    expect(new Set(runsOf(left))).toEqual(new Set([runOf(3)]));
    expect(left.every(({ kind }) => kind === 'reference-point')).toBe(true);
    expect((await world.provider.judgeBase(world.vm, base)).map(({ use }) => use)).not.toContain('changes');
  });

  it('drops reference points of its own lineage only', async (context) => {
    context.skip(held.capabilities.tracking === 'none', 'the platform tracks no changes');
    const { world } = held;
    const other = lineageId('00000000000000bb');
    await create(world, specOf(world, 1, { lineage: other }));
    const theirs = await release(world, 1);
    await world.provider.commitReferencePoint(other, theirs!);
    await create(world, specOf(world, 2));
    const ours = await release(world, 2);
    await world.provider.commitReferencePoint(lineage, ours!);
    const { referencePoints } = await world.provider.inspectVm(world.vm);
    expect(referencePoints.map(({ run }) => run).sort()).toEqual([runOf(1), runOf(2)]);
    const verdicts = await world.provider.judgeBase(world.vm, theirs);
    expect(verdicts.map(({ use }) => use)).toEqual(world.disks.map(() => 'changes'));
  });

  it('gives no reference point where nothing is tracked', async (context) => {
    context.skip(held.capabilities.tracking !== 'none', 'the platform tracks changes');
    const { world } = held;
    await create(world, specOf(world, 1));
    expect(await release(world, 1)).toBeNull();
    await refused(
      (async () => {
        await create(world, specOf(world, 2));
        await withReader(world, runOf(2), world.disks[0]!, async (opened) => {
          for await (const extent of opened.changedExtents({ offset: 0, length: 1 })) expect(extent).toBeUndefined();
        });
      })(),
      'TRACKING_LOST',
    );
  });
}

function guests(held: Held): void {
  it('freezes and thaws around the instant', async (context) => {
    context.skip(held.capabilities.quiesce !== 'agent', 'the platform freezes no guest through an agent');
    context.skip(held.world.guest === 'off', 'the VM is off');
    const { world } = held;
    const checkpoint = await create(world, specOf(world, 1, { consistency: 'require' }));
    expect(world.freezer.calls).toEqual(['freeze', 'thaw']);
    expect(world.freezer.frozen).toBe(false);
    expect(checkpoint.reached).toBe('filesystem');
    expect(checkpoint.frozenMs).not.toBeNull();
    await create(world, specOf(world, 1, { consistency: 'require' }));
    expect(world.freezer.calls).toEqual(['freeze', 'thaw']);
  });

  it('keeps to the policy when the guest cannot be frozen', async () => {
    const { world, capabilities } = held;
    if (capabilities.quiesce === 'hypervisor') return;
    world.freezer.failWith = new TidemarkError('GUEST_UNREACHABLE', 'the agent does not answer');
    await refused(create(world, specOf(world, 1, { consistency: 'require' })), 'GUEST_REQUIRED');
    expect(await listed(world.provider)).toEqual([]);
    expect(await world.provider.findCheckpoint(runOf(1))).toBeNull();
    const checkpoint = await create(world, specOf(world, 2, { consistency: 'prefer' }));
    expect(checkpoint.reached).toBe('crash');
    expect(checkpoint.reachedWhy?.code).toBeTruthy();
    expect(world.freezer.frozen).toBe(false);
  });
}

function artifacts(held: Held): void {
  it('lists what it made under its run, and removes it', async () => {
    const { world } = held;
    await create(world, specOf(world, 1));
    const made = await listed(await world.reopen());
    expect(made.some(({ kind }) => kind === 'temporary')).toBe(true);
    expect(new Set(made.map(({ run, site }) => `${site} ${run}`))).toEqual(new Set([`${world.site} ${runOf(1)}`]));
    for (const artifact of made) await world.provider.removeArtifact(artifact);
    for (const artifact of made) await world.provider.removeArtifact(artifact);
    expect(await listed(world.provider)).toEqual([]);
    expect(await world.provider.findCheckpoint(runOf(1))).toBeNull();
  });

  it('does not touch what another site made', async () => {
    const { world } = held;
    const other = await world.otherSite();
    const checkpoint = await other.createCheckpoint(specOf(world, 1), world.freezer);
    const theirs = await listed(other);
    expect(theirs.length).toBeGreaterThan(0);
    for (const artifact of theirs) await refused(world.provider.removeArtifact(artifact), 'NOT_OURS');
    expect(await other.findCheckpoint(runOf(1))).toEqual(checkpoint);
    await other.releaseCheckpoint(runOf(1));
    await other.discardReferencePoint(runOf(1));
    expect(await listed(other)).toEqual([]);
  });
}

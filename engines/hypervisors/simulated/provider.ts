/**
 * Simulated VMs, for tests of what stands above: thousands of them, and faults on demand. Its words and ours:
 *   moment          -> checkpoint: a position in the guest's file of writes
 *   kept moment     -> reference point: what was written since it is what changed
 *   guest line      -> what the guest or the operator did (`model.ts`)
 */
import { brakesFor } from '../brakes.ts';
import { type HostConfig, readsOffHost, type SimulatedVmConfig } from '../../../schema/domain/configuration.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type {
  Artifact,
  BaseVerdict,
  Capabilities,
  Checkpoint,
  CheckpointDisk,
  CheckpointSpec,
  DiskAccess,
  DiskFacts,
  GuestEvent,
  ReferencePoint,
  Released,
  VmFacts,
  VmPower,
  VmRef,
  VmSummary,
} from '../../../schema/domain/hypervisor.ts';
import {
  artifactName,
  type ArtifactKind,
  type DiskKey,
  type LineageId,
  type RunKey,
  type SiteId,
} from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { oneAtATime } from '../one-at-a-time.ts';
import type { Freezer, HypervisorProvider } from '../provider.ts';
import { judgeDisk } from './judge.ts';
import {
  diskAt,
  type GuestLine,
  isRunOpen,
  modelPath,
  readGuest,
  readState,
  type SimulatedState,
  type StoredCheckpoint,
  writeState,
} from './model.ts';
import { quiesced, type Quiescing } from './quiesce.ts';

export type SimulatedProviderOptions = {
  host: Extract<HostConfig, { provider: 'simulated' }>;
  site: SiteId;
  stateFolder: string;
  seams: Seams;
  /** Default 'checkpoint' (as QEMU); 'release' as Hyper-V. */
  referencePointAt?: Capabilities['referencePointAt'];
  /** Default 'none'; with 'hypervisor' a fault of verb `freeze` makes it fail. */
  quiesce?: Capabilities['quiesce'];
};

export function createSimulatedProvider(options: SimulatedProviderOptions): HypervisorProvider {
  return new SimulatedProvider(options);
}

/** A VM's model as a verb sees it. */
type Opened = { config: SimulatedVmConfig; model: string; state: SimulatedState; guest: GuestLine[] };

const WATCH_MS = 50;

class SimulatedProvider implements HypervisorProvider {
  readonly #options: SimulatedProviderOptions;
  readonly #capabilities: Capabilities;
  readonly #oneAtATime = oneAtATime();

  constructor(options: SimulatedProviderOptions) {
    this.#options = options;
    this.#capabilities = {
      quiesce: options.quiesce ?? 'none',
      tracking: 'bitmap',
      referencePointAt: options.referencePointAt ?? 'checkpoint',
      trackingSurvivesCrash: true,
      poweredOff: true,
      offHost: readsOffHost.simulated,
      atomicDisks: true,
      namesArtifacts: true,
      restore: false,
      instantRecovery: false,
    };
  }

  async capabilities(): Promise<Capabilities> {
    return await Promise.resolve(this.#capabilities);
  }

  async *listVms(): AsyncGenerator<VmSummary> {
    for (const config of this.#options.host.vms) {
      const opened = await this.#open(config);
      const disks = disksNow(opened).map(({ diskKey, sizeBytes }) => ({ diskKey, sizeBytes }));
      yield { vm: this.#refOf(config), name: config.name, power: powerOf(opened.guest), disks };
    }
  }

  async inspectVm(vm: VmRef): Promise<VmFacts> {
    return await this.#verb('inspectVm', this.#configOf(vm), async (opened) => {
      const { config, guest, state } = opened;
      const referencePoints = state.referencePoints.map(({ point }) => point);
      const facts = { disks: disksNow(opened), userCheckpoints: 0, referencePoints, notes: [] };
      const named = { vm: this.#refOf(config), name: config.name, power: powerOf(guest), firmware: 'bios' as const };
      return await Promise.resolve({ ...named, ...facts });
    });
  }

  async judgeBase(vm: VmRef, base: ReferencePoint | null): Promise<BaseVerdict[]> {
    const judge = async (opened: Opened): Promise<BaseVerdict[]> =>
      await Promise.resolve(disksNow(opened).map((disk) => judgeDisk(opened, disk, base).verdict));
    return await this.#verb('judgeBase', this.#configOf(vm), judge);
  }

  async createCheckpoint(spec: CheckpointSpec, freezer: Freezer): Promise<Checkpoint> {
    const config = this.#configOf(spec.vm);
    return await this.#verb('createCheckpoint', config, async (opened) => {
      const known = opened.state.checkpoints[spec.run];
      if (known?.released)
        throw new TidemarkError('CHECKPOINT_LOST', `the checkpoint of run ${spec.run} was released`, { run: spec.run });
      if (known) return known.checkpoint;
      const quiescing: Quiescing = { spec, freezer, kind: this.#capabilities.quiesce };
      const freeze = (): Promise<void> => this.#hitFaults('freeze', opened);
      const { result: moment, ...reached } = await quiesced(quiescing, freeze, async () => {
        return (await readGuest(opened.model)).length;
      });
      const stored = this.#checkpointAt(spec, { ...opened, guest: await readGuest(opened.model) }, moment, reached);
      opened.state.checkpoints[spec.run] = stored;
      if (this.#capabilities.referencePointAt === 'checkpoint') keepReferencePoint(opened.state, stored);
      await writeState(opened.model, opened.state);
      return stored.checkpoint;
    });
  }

  #checkpointAt(
    spec: CheckpointSpec,
    opened: Opened,
    moment: number,
    reached: Pick<Checkpoint, 'reached' | 'frozenMs'>,
  ): StoredCheckpoint {
    const disks: CheckpointDisk[] = [];
    const leftOut: Checkpoint['leftOut'] = [];
    const changesSince: Record<string, number> = {};
    for (const diskKey of spec.disks) {
      const facts = disksNow(opened, moment).find((disk) => disk.diskKey === diskKey);
      if (!facts) leftOut.push({ diskKey, why: { code: 'NOT_FOUND', message: `the VM has no disk ${diskKey}` } });
      else {
        const { verdict, since } = judgeDisk(opened, facts, spec.base);
        disks.push({ ...facts, verdict });
        if (since !== null) changesSince[diskKey] = since;
      }
    }
    const takenAt = new Date(this.#options.seams.clock.now()).toISOString();
    const checkpoint = { run: spec.run, vm: this.#refOf(opened.config), takenAt, ...reached, disks, leftOut };
    return { site: this.#options.site, checkpoint, lineage: spec.lineage, moment, changesSince, released: false };
  }

  async findCheckpoint(run: RunKey): Promise<Checkpoint | null> {
    const opened = await this.#find(run);
    return opened && isRunOpen(opened.state, run) ? opened.state.checkpoints[run]!.checkpoint : null;
  }

  async openAccess(run: RunKey, diskKey: DiskKey): Promise<DiskAccess> {
    const opened = await this.#find(run);
    const stored = opened?.state.checkpoints[run];
    if (!opened || !stored || stored.released)
      throw new TidemarkError('CHECKPOINT_LOST', `there is no checkpoint of run ${run}`, { run });
    const disk = stored.checkpoint.disks.find((one) => one.diskKey === diskKey);
    if (!disk)
      throw new TidemarkError('NOT_FOUND', `checkpoint of run ${run} has no disk ${diskKey}`, { run, diskKey });
    await this.#hitFaults('openAccess', opened);
    const { sizeBytes, identity, verdict } = disk;
    const changes = verdict.use === 'changes' ? { via: 'simulated' as const } : null;
    const data = { via: 'simulated' as const, model: opened.model };
    const brakes = brakesFor(this.#options.host, null);
    return { run, diskKey, sizeBytes, identity, writable: false, data, changes, ...brakes };
  }

  async closeAccess(): Promise<void> {
    await Promise.resolve();
  }

  async releaseCheckpoint(run: RunKey): Promise<Released> {
    const found = await this.#find(run);
    if (!found) return { referencePoint: null, merge: 'done' };
    return await this.#verb('releaseCheckpoint', found.config, async ({ state, model }) => {
      const stored = state.checkpoints[run]!;
      if (!stored.released) {
        stored.released = true;
        if (this.#capabilities.referencePointAt === 'release') keepReferencePoint(state, stored);
        await writeState(model, state);
      }
      const kept = state.referencePoints.find(({ point }) => point.run === run);
      return { referencePoint: kept?.point ?? null, merge: 'done' };
    });
  }

  async awaitMerge(): Promise<void> {
    await Promise.resolve();
  }

  async commitReferencePoint(lineage: LineageId, keep: ReferencePoint): Promise<void> {
    const holds = ({ state }: Opened): boolean => state.referencePoints.some(({ point }) => point.run === keep.run);
    const found = await this.#findWhere(holds);
    if (!found)
      throw new TidemarkError('NOT_FOUND', `there is no reference point of run ${keep.run}`, { run: keep.run });
    await this.#verb('commitReferencePoint', found.config, async ({ state, model }) => {
      const kept = state.referencePoints.find(({ point }) => point.run === keep.run);
      state.referencePoints = state.referencePoints.filter(
        (one) => one.point.lineage !== lineage || one === kept || one.moment > (kept?.moment ?? -1),
      );
      await writeState(model, state);
    });
  }

  /** The previous one needs no merge: it is a moment, and answers for everything since itself by nature. */
  async discardReferencePoint(run: RunKey): Promise<void> {
    const found = await this.#find(run);
    if (!found) return;
    await this.#verb('discardReferencePoint', found.config, async ({ state, model }) => {
      state.referencePoints = state.referencePoints.filter(({ point }) => point.run !== run);
      await writeState(model, state);
    });
  }

  async *watch(run: RunKey, signal: AbortSignal): AsyncGenerator<GuestEvent> {
    const found = await this.#find(run);
    if (!found) return;
    let seen = found.guest.length;
    while (!signal.aborted) {
      const guest = await readGuest(found.model);
      for (const line of guest.slice(seen)) {
        const at = new Date(this.#options.seams.clock.now()).toISOString();
        if (line.kind === 'resize')
          yield { kind: 'resized', at, detail: `disk ${line.diskKey}: ${line.sizeBytes} bytes` };
        if (line.kind === 'power' && line.power === 'off') yield { kind: 'off', at, detail: 'the guest powered off' };
        if (line.kind === 'power' && line.power === 'paused')
          yield { kind: 'paused', at, detail: 'the guest was paused' };
      }
      seen = guest.length;
      await this.#options.seams.clock.sleep(WATCH_MS, signal).catch(() => undefined);
    }
  }

  async *listArtifacts(): AsyncGenerator<Artifact> {
    for (const config of this.#options.host.vms) {
      const { state } = await this.#open(config);
      for (const { site, checkpoint, released } of Object.values(state.checkpoints))
        if (!released) yield this.#artifact(config, site, checkpoint.run, 'temporary');
      for (const { site, point } of state.referencePoints)
        yield this.#artifact(config, site, point.run, 'reference-point');
    }
  }

  #artifact(config: SimulatedVmConfig, site: SiteId, run: RunKey, kind: Artifact['kind']): Artifact {
    const short: ArtifactKind = kind === 'temporary' ? 'cbw' : 'bm';
    const what = `${kind === 'temporary' ? 'checkpoint' : 'reference point'} of run ${run} on simulated VM ${config.name}`;
    return { kind, site, run, vm: this.#refOf(config), what, platformName: artifactName(site, run, short, 0) };
  }

  async removeArtifact(artifact: Artifact): Promise<void> {
    const { site, run, kind } = artifact;
    if (site !== this.#options.site)
      throw new TidemarkError('NOT_OURS', `${artifact.what} is not of site ${this.#options.site}`, { site, run });
    if (kind === 'reference-point') return await this.discardReferencePoint(run);
    const found = await this.#find(run);
    if (!found) return;
    await this.#verb('removeArtifact', found.config, async ({ state, model }) => {
      state.checkpoints[run]!.released = true;
      await writeState(model, state);
    });
  }

  async close(): Promise<void> {
    await Promise.resolve();
  }

  /** One verb at a time per VM, on the model as it is on disk, after the faults meant for it. */
  async #verb<T>(verb: string, config: SimulatedVmConfig, work: (opened: Opened) => Promise<T>): Promise<T> {
    return await this.#oneAtATime(config.vmId, async () => {
      const opened = await this.#open(config);
      await this.#hitFaults(verb, opened);
      return await work(opened);
    });
  }

  async #hitFaults(verb: string, { guest, state, model }: Opened): Promise<void> {
    for (const [index, line] of guest.entries()) {
      if (line.kind !== 'fault' || line.verb !== verb || (state.faultsUsed[index] ?? 0) >= line.times) continue;
      state.faultsUsed[index] = (state.faultsUsed[index] ?? 0) + 1;
      await writeState(model, state);
      if (line.delayMs) await this.#options.seams.clock.sleep(line.delayMs);
      if (line.code) throw new TidemarkError(line.code, line.message ?? `${verb} failed as the test wished`, { verb });
      return;
    }
  }

  async #open(config: SimulatedVmConfig): Promise<Opened> {
    const model = modelPath(this.#options.stateFolder, config.vmId);
    const { vmId, disks } = config;
    const fresh: SimulatedState = { vmId, disks, checkpoints: {}, referencePoints: [], faultsUsed: {} };
    const state = { ...((await readState(model)) ?? fresh), disks };
    return { config, model, state, guest: await readGuest(model) };
  }

  #find = (run: RunKey): Promise<Opened | null> => this.#findWhere(({ state }) => state.checkpoints[run] !== undefined);

  async #findWhere(matches: (opened: Opened) => boolean): Promise<Opened | null> {
    for (const config of this.#options.host.vms) {
      const opened = await this.#open(config);
      if (matches(opened)) return opened;
    }
    return null;
  }

  #configOf({ vmId }: VmRef): SimulatedVmConfig {
    const { hostId, vms } = this.#options.host;
    const config = vms.find((one) => one.vmId === vmId);
    if (config) return config;
    throw new TidemarkError('VM_NOT_FOUND', `host ${hostId} has no VM ${vmId}`, { hostId, vmId });
  }

  #refOf = (config: SimulatedVmConfig): VmRef => ({ vmId: config.vmId, hostId: this.#options.host.hostId });
}

function disksNow({ config, guest }: Opened, moment = guest.length): DiskFacts[] {
  return config.disks.map((disk) => {
    const { sizeBytes, identity } = diskAt(disk, guest, moment);
    return { diskKey: disk.diskKey, sizeBytes, sectorBytes: 512, identity, shared: false, snapshotOk: true };
  });
}

const powerOf = (guest: readonly GuestLine[]): VmPower =>
  guest.findLast((line) => line.kind === 'power')?.power ?? 'on';

function keepReferencePoint(state: SimulatedState, { site, checkpoint, lineage, moment }: StoredCheckpoint): void {
  const { run } = checkpoint;
  const disks = checkpoint.disks.map(({ diskKey, identity, sizeBytes }) => ({
    diskKey,
    trackingId: artifactName(site, run, 'bm', 0),
    identity,
    sizeBytes,
  }));
  state.referencePoints = state.referencePoints.filter(({ point }) => point.run !== run);
  state.referencePoints.push({ site, point: { run, lineage, platformId: `moment ${moment}`, disks }, moment });
}

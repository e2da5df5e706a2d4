/**
 * QEMU over bare QMP. Its words and ours:
 *   backup job with scratch node, or a storage daemon on the images -> checkpoint
 *   persistent dirty bitmap, recording                               -> reference point; disabled: of a session under way
 *   block node attached to a device                                  -> disk; NBD export -> what a `DiskAccess` names
 */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type {
  Artifact,
  BaseVerdict,
  Capabilities,
  Checkpoint,
  CheckpointSpec,
  DiskAccess,
  GuestEvent,
  Reason,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
  VmSummary,
} from '../../../schema/domain/hypervisor.ts';
import type { DiskKey, LineageId, ProxyId, RunKey, SiteId, VmId } from '../../../schema/domain/ids.ts';
import { type QemuVmConfig, readsOffHost } from '../../../schema/domain/configuration.ts';
import type { Monitor, Seams } from '../../../schema/domain/seams.ts';
import { join } from 'node:path';
import { type ArtifactLedger, createArtifactLedger } from '../ledger.ts';
import { oneAtATime } from '../one-at-a-time.ts';
import type { Freezer, HypervisorProvider } from '../provider.ts';
import { listOurs, removeOurs } from './artifacts.ts';
import { closeDisks, createOrAdopt, findHeld, openDisk, release } from './checkpoints.ts';
import { configOf, type Context, type QemuHost, refOf } from './context.ts';
import { createGuards, guestEvents, type Guards } from './guards.ts';
import { judgeDisk } from './judge.ts';
import { lookAtVms } from './look-at-vms.ts';
import type { QmpAction } from './qmp-shapes.ts';
import { commitRun, discardRun, mendableBitmaps } from './reference-points.ts';
import { createRunStates, knownKeys, type RunState } from './run-states.ts';
import { viewRunning } from './running-view.ts';
import { viewStopped } from './stopped-view.ts';
import { endTemporaries } from './temporaries.ts';
import type { VmView } from './vm-view.ts';

export type QemuProviderOptions = {
  host: QemuHost;
  site: SiteId;
  /** The host's own; ledger and run files live in it. Short: sockets of storage daemons lie below it. */
  stateFolder: string;
  /** Of running VMs; the guest keeper owns the sockets, since QEMU takes one client only. */
  monitorOf: (vm: VmId) => Monitor;
  seams: Seams;
  /** More actions for the transaction of each checkpoint; for tests, which take copies of their own at the same instant. */
  extraActions?: () => Promise<QmpAction[]>;
};

const capabilities: Capabilities = {
  quiesce: 'agent',
  tracking: 'bitmap',
  referencePointAt: 'checkpoint',
  trackingSurvivesCrash: false,
  poweredOff: true,
  offHost: readsOffHost.qemu,
  atomicDisks: true,
  namesArtifacts: true,
  restore: false,
  instantRecovery: false,
};

export function createQemuProvider(options: QemuProviderOptions): HypervisorProvider {
  return new QemuProvider(options);
}

class QemuProvider implements HypervisorProvider {
  readonly #context: Context;
  readonly #guards: Guards;
  /** A run's verbs one after another, and within them what touches its VM. */
  readonly #perRun = oneAtATime();
  readonly #perVm = oneAtATime();
  /** Checkpoints that were held when this worker started are looked after, too. */
  readonly #guardingHeld: Promise<void>;
  #openedLedger: Promise<ArtifactLedger> | null = null;

  constructor({ extraActions, ...options }: QemuProviderOptions) {
    this.#context = {
      ...options,
      states: createRunStates(join(options.stateFolder, 'runs'), options.seams.log),
      ledger: () => this.#ledger(),
      extraActions: extraActions ?? (() => Promise.resolve([])),
    };
    this.#guards = createGuards(this.#context, (run, why) => this.#lose(run, why));
    this.#guardingHeld = this.#guardHeld();
  }

  async capabilities(): Promise<Capabilities> {
    return await Promise.resolve(capabilities);
  }

  async *listVms(): AsyncGenerator<VmSummary> {
    const states = await this.#context.states.all();
    const look = async (config: QemuVmConfig): Promise<VmSummary> => {
      const ofVm = states.filter((state) => state.vm.vmId === config.vmId);
      const { power, disks } = await this.#view(config, ofVm);
      const seen = disks.map(({ facts: { diskKey, sizeBytes } }) => ({ diskKey, sizeBytes }));
      return { vm: refOf(this.#context, config), name: config.name, power, disks: seen };
    };
    yield* await lookAtVms(this.#context, look, (config, error) => this.#unseen(config, error));
  }

  async inspectVm(vm: VmRef): Promise<VmFacts> {
    const config = configOf(this.#context, vm);
    const states = await this.#context.states.ofVm(config.vmId);
    const { disks, bitmaps, power, firmware, notes, userCheckpoints } = await this.#view(config, states);
    const there = new Set(bitmaps.map(({ name }) => name));
    const referencePoints = states.flatMap(({ phase, referencePoint }) =>
      phase === 'released' && referencePoint?.disks.some(({ trackingId }) => there.has(trackingId))
        ? [referencePoint]
        : [],
    );
    const facts = disks.map((disk) => disk.facts);
    const ref = refOf(this.#context, config);
    return { vm: ref, name: config.name, power, firmware, disks: facts, userCheckpoints, referencePoints, notes };
  }

  async judgeBase(vm: VmRef, base: ReferencePoint | null): Promise<BaseVerdict[]> {
    const config = configOf(this.#context, vm);
    const states = await this.#context.states.ofVm(config.vmId);
    const view = await this.#view(config, states);
    const mendable = base ? mendableBitmaps(view, base, states) : new Set<string>();
    return view.disks.map((disk) => judgeDisk(disk, view, base, mendable));
  }

  async createCheckpoint(spec: CheckpointSpec, freezer: Freezer): Promise<Checkpoint> {
    return await this.#perRun(spec.run, () =>
      this.#perVm(spec.vm.vmId, async () => {
        const checkpoint = await createOrAdopt(this.#context, spec, freezer);
        await this.#guard(spec.run);
        return checkpoint;
      }),
    );
  }

  async findCheckpoint(run: RunKey): Promise<Checkpoint | null> {
    return await this.#onRun(run, () => findHeld(this.#context, run));
  }

  async openAccess(run: RunKey, diskKey: DiskKey): Promise<DiskAccess> {
    return await this.#onRun(run, async () => {
      const access = await openDisk(this.#context, run, diskKey);
      await this.#guard(run);
      return access;
    });
  }

  async closeAccess(run: RunKey, reader?: ProxyId): Promise<void> {
    if (reader === undefined) await this.#onRun(run, () => closeDisks(this.#context, run));
  }

  async releaseCheckpoint(run: RunKey): Promise<Released> {
    return await this.#onRun(run, () => {
      this.#guards.end(run);
      return release(this.#context, run);
    });
  }

  async awaitMerge(): Promise<void> {
    await Promise.resolve();
  }

  async commitReferencePoint(lineage: LineageId, keep: ReferencePoint): Promise<void> {
    await this.#onRun(keep.run, () => commitRun(this.#context, lineage, keep));
  }

  async discardReferencePoint(run: RunKey): Promise<void> {
    await this.#onRun(run, async (state) => {
      this.#guards.end(run);
      if (state) await discardRun(this.#context, state);
    });
  }

  async *watch(run: RunKey, signal: AbortSignal): AsyncGenerator<GuestEvent> {
    const state = await this.#context.states.load(run);
    if (state) yield* guestEvents(this.#context, state, signal);
  }

  async *listArtifacts(): AsyncGenerator<Artifact> {
    yield* listOurs(this.#context);
  }

  async removeArtifact(artifact: Artifact): Promise<void> {
    await this.#perRun(artifact.run, () =>
      this.#perVm(artifact.vm.vmId, () => {
        this.#guards.end(artifact.run);
        return removeOurs(this.#context, artifact);
      }),
    );
  }

  async close(): Promise<void> {
    await this.#guardingHeld;
    await this.#guards.close();
    await (await this.#openedLedger)?.close();
    this.#openedLedger = null;
  }

  /** Of a run that nothing is known of, there is no VM to wait for. */
  async #onRun<T>(run: RunKey, work: (state: RunState | null) => Promise<T>): Promise<T> {
    return await this.#perRun(run, async () => {
      const state = await this.#context.states.load(run);
      if (!state) return await work(null);
      return await this.#perVm(state.vm.vmId, async () => work(await this.#context.states.load(run)));
    });
  }

  async #guard(run: RunKey): Promise<void> {
    const state = await this.#context.states.load(run);
    if (state?.phase === 'taken') this.#guards.begin(state);
  }

  async #guardHeld(): Promise<void> {
    try {
      for (const state of await this.#context.states.all()) if (state.phase === 'taken') this.#guards.begin(state);
    } catch (error) {
      this.#context.seams.log.warn('held checkpoints are not looked after yet', { cause: messageOf(error) });
    }
  }

  async #lose(run: RunKey, lost: Reason): Promise<void> {
    await this.#onRun(run, async (state) => {
      if (state?.phase === 'taken') {
        this.#context.seams.log.error('a checkpoint was lost', { run, vm: state.vm.vmId, ...lost });
        await this.#context.states.save({ ...state, phase: 'lost', lost });
      } else if (state?.phase !== 'lost') return;
      await endTemporaries(this.#context, state);
    });
  }

  /** VM_OFF: it is off, and its images are not known. */
  async #view(config: QemuVmConfig, states: readonly RunState[]): Promise<VmView> {
    try {
      return await viewRunning(this.#context.monitorOf(config.vmId), config, knownKeys(states));
    } catch (error) {
      if (errorCodeOf(error) !== 'VM_OFF') throw error;
      return await viewStopped(config);
    }
  }

  /** For the list: one VM that cannot be looked at must not hide the others. */
  #unseen(config: QemuVmConfig, error: unknown): VmSummary {
    const isOff = errorCodeOf(error) === 'VM_OFF';
    if (!isOff) this.#context.seams.log.warn('a VM cannot be inspected', { vm: config.name, cause: messageOf(error) });
    return { vm: refOf(this.#context, config), name: config.name, power: isOff ? 'off' : 'on', disks: null };
  }

  #ledger(): Promise<ArtifactLedger> {
    const { stateFolder, seams } = this.#context;
    this.#openedLedger ??= createArtifactLedger(stateFolder, seams.log).catch((error: unknown) => {
      this.#openedLedger = null;
      throw error;
    });
    return this.#openedLedger;
  }
}

/**
 * What this host knows of each run that may have something on a VM: one file per run, written before anything is made,
 * removed when nothing of it is left. Who owns which bitmap, and what came of the freeze, is told here alone.
 */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type {
  BaseVerdict,
  Checkpoint,
  CheckpointSpec,
  DiskFacts,
  Reason,
  ReferencePoint,
  VmRef,
} from '../../../schema/domain/hypervisor.ts';
import { type DiskKey, isRunKey, type LineageId, type RunKey, runKey, type VmId } from '../../../schema/domain/ids.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { readJson, removeJson, writeJson } from '../durable-json.ts';

const VERSION = 1;

export type RunDisk = {
  index: number;
  facts: DiskFacts;
  /** Node the checkpoint is of; of a VM that is off: the image file. */
  node: string;
  format: string;
  /** Absolute; null where QEMU gave none. */
  file: string | null;
  verdict: BaseVerdict;
  /** Of this run; null where the disk cannot be tracked. */
  bitmap: string | null;
  /** Bitmap of the base, disabled at the instant; null unless the verdict is 'changes'. */
  base: string | null;
};

export type Outcome = Pick<Checkpoint, 'reached' | 'reachedWhy' | 'frozenMs'>;

/**
 * creating: perhaps made, in part or whole, and nobody was told. taken: the checkpoint was told. releasing, released: it
 * was whole to its end. lost: it was not. `lost` never becomes `released`: what was read of it must not be sealed.
 */
export type Phase = 'creating' | 'taken' | 'releasing' | 'released' | 'lost';

export type RunState = {
  version: typeof VERSION;
  run: RunKey;
  vm: VmRef;
  lineage: LineageId;
  /** Growing over the runs of this host. */
  sequence: number;
  /** Whether the checkpoint is held by the VM's own QEMU, or by a storage daemon since the VM is off. */
  heldBy: 'vm' | 'daemon';
  /**
   * Of the VM that holds it, so that it can be ended when the VM is not in the configuration any more. Absent where a
   * daemon holds it, and in files of earlier builds.
   */
  monitorSocket?: string;
  phase: Phase;
  /** ISO 8601, just before the instant. */
  startedAt: string;
  consistency: CheckpointSpec['consistency'];
  base: ReferencePoint | null;
  disks: RunDisk[];
  leftOut: Checkpoint['leftOut'];
  checkpoint: Checkpoint | null;
  /** Null where no disk is tracked. */
  referencePoint: ReferencePoint | null;
  lost: Reason | null;
};

export type RunStates = {
  /** STORAGE_ERROR: its file is damaged, or of another version. */
  load(run: RunKey): Promise<RunState | null>;
  /** Newest first. */
  ofVm(vm: VmId): Promise<RunState[]>;
  /** Without those whose file is damaged: what they made is found by its names, and no other VM has to wait for it. */
  all(): Promise<RunState[]>;
  /** Durable when it resolves. */
  save(state: RunState): Promise<void>;
  remove(run: RunKey): Promise<void>;
  nextSequence(): Promise<number>;
};

/** `folder` need not be there. BAD_REQUEST for what is no run key; STORAGE_ERROR. */
export function createRunStates(folder: string, log: Log): RunStates {
  const fileOf = (run: RunKey): string => {
    if (!isRunKey(run)) throw new TidemarkError('BAD_REQUEST', `${run} is not a run key`, { run });
    return join(folder, `${run}.json`);
  };
  const load = async (run: RunKey): Promise<RunState | null> => {
    const state = (await readJson(fileOf(run))) as RunState | null;
    if (state === null || (state.version === VERSION && state.run === run)) return state;
    throw new TidemarkError('STORAGE_ERROR', `${fileOf(run)} is not of this version`, { run, file: fileOf(run) });
  };
  const loadWhole = (run: RunKey): Promise<RunState | null> =>
    load(run).catch((error: unknown) => {
      log.error('the file of a run is passed over', { run, cause: messageOf(error) });
      return null;
    });
  const all = async (): Promise<RunState[]> => {
    const names = await readdir(folder).catch(() => []);
    const runs = names.filter((name) => name.endsWith('.json')).map((name) => runKey(name.slice(0, -5)));
    const states = await Promise.all(runs.filter(isRunKey).map(loadWhole));
    return states.filter((state) => state !== null).sort((a, b) => b.sequence - a.sequence);
  };
  return {
    load,
    all,
    ofVm: async (vm) => (await all()).filter((state) => state.vm.vmId === vm),
    save: (state) => writeJson(fileOf(state.run), state),
    remove: (run) => removeJson(fileOf(run)),
    nextSequence: async () => 1 + ((await all())[0]?.sequence ?? 0),
  };
}

/** Keys under which disks of these runs' VM are known. */
export const knownKeys = (states: readonly RunState[]): Set<DiskKey> =>
  new Set(states.flatMap(({ disks }) => disks.map(({ facts }) => facts.diskKey)));

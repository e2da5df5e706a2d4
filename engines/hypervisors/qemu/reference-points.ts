/** Reference points between sessions: older ones dropped after a seal, new ones folded back into the one before. */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { CheckpointSpec, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import type { LineageId, VmId } from '../../../schema/domain/ids.ts';
import { type BitmapChange, changeInFiles, changeInVm } from './bitmap-changes.ts';
import type { Context } from './context.ts';
import { queryNodes } from './qmp-shapes.ts';
import { monitorOfRun } from './run-monitor.ts';
import { bitmapsOf } from './running-view.ts';
import type { RunState } from './run-states.ts';
import { bitmapsInFiles } from './stopped-view.ts';
import { endTemporaries } from './temporaries.ts';
import type { Bitmap, VmView } from './vm-view.ts';

type Kept = { bitmaps: Bitmap[]; change: (changes: readonly BitmapChange[]) => Promise<void> };

/** The bitmaps of a VM, wherever they are now. VM_OFF: it is off, and it is not known where its images are. */
export async function findBitmaps(context: Context, vm: VmId, states: readonly RunState[]): Promise<Kept> {
  const config = context.host.vms.find((one) => one.vmId === vm);
  const lastAsked = config ? undefined : states.find(({ monitorSocket }) => monitorSocket !== undefined);
  const monitor = lastAsked ? monitorOfRun(context, lastAsked) : context.monitorOf(vm);
  try {
    const bitmaps = bitmapsOf(await queryNodes(monitor));
    return { bitmaps, change: (changes) => changeInVm(monitor, changes) };
  } catch (error) {
    const code = errorCodeOf(error);
    if (code !== 'VM_OFF' && (code !== 'VM_NOT_FOUND' || config)) throw error;
  }
  const tracked = states.flatMap(({ disks }) => disks.filter(({ bitmap }) => bitmap !== null));
  const configured = (config?.disks ?? []).filter(({ format }) => format === 'qcow2').map(({ file }) => file);
  const files = new Set(configured);
  for (const { file, facts } of tracked) {
    if (file !== null) files.add(file);
    else if (!config?.disks?.some(({ diskKey }) => diskKey === facts.diskKey))
      throw new TidemarkError('VM_OFF', `vm ${vm} is off, and the image of its disk ${facts.diskKey} is not known`, {
        vm,
      });
  }
  return { bitmaps: await bitmapsInFiles(files), change: changeInFiles };
}

/**
 * Invariant 3: what a run recorded since its instant goes into the bitmap of its base, which records again; nothing of
 * the run is left. Where that cannot be (one of the two is gone, or has not recorded all the time), the base stays stopped
 * and is judged so. A run whose images take no changes now is kept for the next opportunity.
 */
export async function discardRun(context: Context, state: RunState): Promise<void> {
  const { vm, phase } = state;
  // From now on it is not told of any more, whatever happens on the way. What was never told may be tried again.
  if (phase === 'taken' || phase === 'releasing')
    await context.states.save({ ...state, phase: 'lost', lost: { code: 'STOPPED', message: 'it was discarded' } });
  if (phase !== 'released') await endTemporaries(context, state);
  const { bitmaps, change } = await findBitmaps(context, vm.vmId, [state]);
  const owned = state.disks.flatMap(({ bitmap, base }) => {
    const found = bitmaps.find(({ name }) => name === bitmap);
    return found ? [{ bitmap: found, base: bitmaps.find((one) => one.name === base && one.node === found.node) }] : [];
  });
  await change(
    owned
      .filter(({ bitmap }) => !bitmap.readOnly)
      .map(({ bitmap: { node, name, inconsistent, recording }, base }): BitmapChange =>
        base && !base.inconsistent && !inconsistent && recording
          ? { kind: 'fold', node, from: name, into: base.name }
          : { kind: 'drop', node, name },
      ),
  );
  if (owned.some(({ bitmap }) => bitmap.readOnly)) return keepForLater(context, state);
  await forget(context, state);
}

/** Invariant 3: only after the seal. Runs of other lineages, and newer ones, stay. */
export async function commitRun(context: Context, lineage: LineageId, keep: ReferencePoint): Promise<void> {
  const kept = await context.states.load(keep.run);
  const older = (await context.states.all()).filter(
    (state) => state.lineage === lineage && state.run !== keep.run && kept !== null && state.sequence < kept.sequence,
  );
  for (const state of older.filter(({ phase }) => phase !== 'released')) await endTemporaries(context, state);
  // The base is named even where its own file was lost with the state folder.
  const ofBase = kept?.base?.disks.map(({ trackingId }) => trackingId) ?? [];
  const names = new Set([...older.flatMap(({ disks }) => disks.map(({ bitmap }) => bitmap)), ...ofBase]);
  if (!kept || names.size === 0) return;
  const { bitmaps, change } = await findBitmaps(context, kept.vm.vmId, [...older, kept]);
  const found = bitmaps.filter(({ name }) => names.has(name));
  await change(found.filter((one) => !one.readOnly).map(({ node, name }) => ({ kind: 'drop', node, name })));
  const stuck = new Set(found.filter((one) => one.readOnly).map(({ name }) => name));
  for (const state of older)
    if (state.disks.some(({ bitmap }) => bitmap !== null && stuck.has(bitmap))) keepForLater(context, state);
    else await forget(context, state);
}

function keepForLater({ seams }: Context, { run, vm }: RunState): void {
  seams.log.warn('a bitmap lies under a snapshot and is dropped when that is gone', { run, vm: vm.vmId });
}

export async function forget(context: Context, { run }: RunState): Promise<void> {
  const ledger = await context.ledger();
  const entries = ledger.list().filter(({ artifact }) => artifact.run === run);
  await ledger.remove(entries.map(({ artifact }) => artifact));
  await context.states.remove(run);
}

/**
 * Before a new checkpoint: runs of this VM that nobody will end any more are discarded, newest first. The VM's lock says
 * that no other session works on it. A run that was not released was not sealed; one of this lineage that is newer than
 * the last sealed one was not, either.
 */
export async function discardDeadRuns(context: Context, spec: CheckpointSpec): Promise<void> {
  const states = await context.states.ofVm(spec.vm.vmId);
  for (const state of states.filter(isDead(spec, states))) {
    context.seams.log.info('discarding what an earlier session left', { run: state.run, phase: state.phase });
    await discardRun(context, state);
  }
}

function isDead(
  { run, lineage, base }: Pick<CheckpointSpec, 'lineage' | 'base'> & { run: string | null },
  states: readonly RunState[],
): (state: RunState) => boolean {
  const baseSequence = states.find((state) => state.run === base?.run)?.sequence ?? (base ? -1 : Infinity);
  return (state) => {
    if (state.run === run || state.run === base?.run) return false;
    // Without a reference point nothing is kept but its file.
    if (state.phase !== 'released' || state.referencePoint === null) return true;
    return state.lineage === lineage && state.sequence > baseSequence;
  };
}

/** Bitmaps of the base that will record again once the dead runs are discarded: each link of the chain is there. */
export function mendableBitmaps(
  { bitmaps }: Pick<VmView, 'bitmaps'>,
  base: ReferencePoint,
  states: readonly RunState[],
): Set<string> {
  const mendable = new Set<string>();
  const isSound = (one: Bitmap): boolean => !one.inconsistent && !one.readOnly;
  for (const state of states.filter(isDead({ run: null, lineage: base.lineage, base }, states)))
    for (const disk of state.disks) {
      const found = bitmaps.find(({ name }) => name === disk.bitmap);
      const into = bitmaps.find(({ name, node }) => name === disk.base && node === found?.node);
      if (found && into && isSound(found) && (found.recording || mendable.has(found.name))) mendable.add(into.name);
    }
  return mendable;
}

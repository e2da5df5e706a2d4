/** Takes a checkpoint of a running VM: all disks at one instant, in one transaction. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Checkpoint, CheckpointSpec, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import type { Freezer } from '../provider.ts';
import { artifactsOf, type Context, holderNode, nameOf, refOf, serverSocketOf, configOf } from './context.ts';
import { assertSocketPathFits } from './exports.ts';
import { serve, withHolder } from './holder.ts';
import { judgeDisk } from './judge.ts';
import { startServer } from './nbd-server.ts';
import { type Commands, type QmpAction, queryNodes } from './qmp-shapes.ts';
import { quiesced } from './quiesce.ts';
import { bitmapsOf, isMigrating, viewRunning } from './running-view.ts';
import { knownKeys, type Outcome, type RunDisk, type RunState } from './run-states.ts';
import { assertRoom, createScratch, scratchFile } from './scratch.ts';
import { type Bitmap, GRANULARITY_BYTES, type VmDisk, type VmView } from './vm-view.ts';

/** VM_OFF: nobody listens on the monitor. See `createCheckpoint` of the provider for the rest. */
export async function takeOfRunning(context: Context, spec: CheckpointSpec, freezer: Freezer): Promise<Checkpoint> {
  const config = configOf(context, spec.vm);
  const monitor = context.monitorOf(config.vmId);
  const view = await viewRunning(monitor, config, knownKeys(await context.states.ofVm(config.vmId)));
  if (await isMigrating(monitor))
    throw new TidemarkError('PLATFORM_BUSY', `vm ${config.name} is being migrated`, { vmId: config.vmId });
  assertSocketPathFits(serverSocketOf(context, spec.run));
  const state = await planRun(context, spec, view, 'vm');
  await assertRoom(context.host.scratch, context.site, state.disks.length);
  await begin(context, state);
  await prepare(context, state, monitor);
  const actions = [...instantActions(context, state), ...(await context.extraActions())];
  const transact = async (): Promise<void> => {
    state.startedAt = new Date(context.seams.clock.now()).toISOString();
    await monitor.execute('transaction', { actions });
  };
  return await settle(context, state, await quiesced(spec, freezer, transact));
}

/** BAD_DISK: nothing of what was asked for can be in a checkpoint. */
export async function planRun(
  context: Context,
  spec: CheckpointSpec,
  view: VmView,
  heldBy: RunState['heldBy'],
): Promise<RunState> {
  const config = configOf(context, spec.vm);
  const disks: RunDisk[] = [];
  const leftOut: Checkpoint['leftOut'] = [];
  for (const diskKey of spec.disks) {
    const disk = view.disks.find(({ facts }) => facts.diskKey === diskKey);
    if (!disk)
      leftOut.push({ diskKey, why: { code: 'NOT_FOUND', message: `vm ${config.name} has no disk ${diskKey}` } });
    else if (!disk.facts.snapshotOk)
      leftOut.push({ diskKey, why: { code: 'BAD_DISK', message: disk.facts.why ?? `disk ${diskKey} cannot be read` } });
    else disks.push(planDisk(context, spec, view, disk, disks.length));
  }
  if (disks.length === 0) {
    const why = leftOut.map((one) => one.why.message).join('; ') || 'none was asked for';
    throw new TidemarkError('BAD_DISK', `vm ${config.name} has no disk to back up: ${why}`, { vmId: config.vmId });
  }
  return {
    version: 1,
    run: spec.run,
    vm: refOf(context, config),
    lineage: spec.lineage,
    sequence: await context.states.nextSequence(),
    heldBy,
    ...(heldBy === 'vm' ? { monitorSocket: config.qmp } : {}),
    phase: 'creating',
    startedAt: new Date(context.seams.clock.now()).toISOString(),
    consistency: spec.consistency,
    base: spec.base,
    disks,
    leftOut,
    checkpoint: null,
    referencePoint: null,
    lost: null,
  };
}

function planDisk(context: Context, spec: CheckpointSpec, view: VmView, disk: VmDisk, index: number): RunDisk {
  const { facts, node, format, file } = disk;
  const verdict = judgeDisk(disk, view, spec.base, new Set());
  const trackingId = spec.base?.disks.find((one) => one.diskKey === facts.diskKey)?.trackingId;
  return {
    index,
    facts,
    node,
    format,
    file,
    verdict,
    bitmap: disk.untracked ? null : nameOf(context, spec.run, 'bm', index),
    base: verdict.use === 'changes' ? trackingId! : null,
  };
}

/** From here on there may be something of this run on the platform (invariant 6). */
export async function begin(context: Context, state: RunState): Promise<void> {
  await context.states.save(state);
  await (await context.ledger()).intend(artifactsOf(context, state));
}

/** All that can be done before the guest is frozen. */
async function prepare(context: Context, state: RunState, monitor: Commands): Promise<void> {
  const { run, disks } = state;
  for (const { index, facts, node } of disks) {
    const name = nameOf(context, run, 'flc', index);
    const filename = scratchFile(context.host.scratch, name);
    await createScratch(filename, facts.sizeBytes);
    const file = { driver: 'file', filename };
    await monitor.execute('blockdev-add', { driver: 'qcow2', 'node-name': name, file, backing: node });
  }
  await startServer(context, state, monitor);
}

/** Per disk: a new bitmap begins to record, the base's stops, and from now on what is overwritten is kept. */
function instantActions(context: Context, state: RunState): QmpAction[] {
  const copies = state.disks.map(({ index, node }) => {
    const name = (kind: 'job' | 'flc' | 'cbw'): string => nameOf(context, state.run, kind, index);
    const data = { 'job-id': name('job'), device: node, target: name('flc'), 'filter-node-name': name('cbw') };
    return { type: 'blockdev-backup', data: { ...data, sync: 'none' } };
  });
  return [...bitmapActions(state), ...copies];
}

export function bitmapActions(state: RunState): QmpAction[] {
  return state.disks.flatMap((disk) => {
    const node = holderNode(state, disk);
    const actions: QmpAction[] = [];
    if (disk.bitmap !== null) {
      const data = { node, name: disk.bitmap, granularity: GRANULARITY_BYTES, persistent: true };
      actions.push({ type: 'block-dirty-bitmap-add', data });
    }
    if (disk.base !== null) actions.push({ type: 'block-dirty-bitmap-disable', data: { node, name: disk.base } });
    return actions;
  });
}

/** After the instant: looks at what came of it, writes it down, and only then shows the disks and answers. */
export async function settle(context: Context, state: RunState, outcome: Outcome): Promise<Checkpoint> {
  const bitmaps = await withHolder(context, state, async (monitor) => bitmapsOf(await queryNodes(monitor)));
  const disks = state.disks.map((disk) => ({ ...disk, verdict: verdictAfter(state, disk, bitmaps) }));
  const { run, vm, startedAt, leftOut } = state;
  const checkpoint: Checkpoint = {
    run,
    vm,
    takenAt: startedAt,
    ...outcome,
    disks: disks.map(({ facts, verdict }) => ({ ...facts, verdict })),
    leftOut,
  };
  const referencePoint = referencePointOf(context, state);
  const taken: RunState = { ...state, phase: 'taken', disks, checkpoint, referencePoint };
  await context.states.save(taken);
  await show(context, taken);
  return checkpoint;
}

/** Once it is written down: what was shown already stays. */
export async function show(context: Context, state: RunState): Promise<void> {
  await serve(context, state);
  await (await context.ledger()).made(artifactsOf(context, state));
}

/** A map that is not what it was meant to be is not read (invariant 11); a new one that is not there cannot be promised. */
function verdictAfter(state: RunState, disk: RunDisk, bitmaps: readonly Bitmap[]): RunDisk['verdict'] {
  const node = holderNode(state, disk);
  const find = (name: string): Bitmap | undefined => bitmaps.find((one) => one.name === name && one.node === node);
  const made = disk.bitmap === null ? null : find(disk.bitmap);
  if (made === undefined || made?.recording === false || made?.inconsistent)
    throw new TidemarkError('HYPERVISOR_ERROR', `bitmap ${disk.bitmap} on node ${node} does not record`, {
      run: state.run,
      diskKey: disk.facts.diskKey,
    });
  if (disk.base === null) return disk.verdict;
  const base = find(disk.base);
  if (base && !base.recording && !base.inconsistent) return disk.verdict;
  const message = `bitmap ${disk.base} did not stop to record at the instant, on disk ${disk.facts.diskKey}`;
  return { diskKey: disk.facts.diskKey, use: 'compare', reason: { code: 'TRACKING_LOST', message } };
}

function referencePointOf(context: Context, { run, lineage, disks }: RunState): ReferencePoint | null {
  const tracked = disks.flatMap(({ bitmap, facts: { diskKey, identity, sizeBytes } }) =>
    bitmap === null ? [] : [{ diskKey, trackingId: bitmap, identity, sizeBytes }],
  );
  return tracked.length === 0 ? null : { run, lineage, platformId: nameOf(context, run, 'bm'), disks: tracked };
}

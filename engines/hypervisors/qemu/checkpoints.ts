/** The life of a checkpoint, by run key: created or adopted, opened, released. Every verb may be said again. */
import { brakesFor } from '../brakes.ts';
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Checkpoint, CheckpointSpec, DiskAccess, Released } from '../../../schema/domain/hypervisor.ts';
import type { DiskKey, RunKey } from '../../../schema/domain/ids.ts';
import type { Freezer } from '../provider.ts';
import { settle, show, takeOfRunning } from './checkpoint.ts';
import { configOf, type Context, holderNode, isOfRun } from './context.ts';
import { CONNECTIONS_PER_DISK, removeExports } from './exports.ts';
import { endpointOf, serve, whyNotHeld, withHolder } from './holder.ts';
import { queryNodes } from './qmp-shapes.ts';
import { discardDeadRuns, discardRun } from './reference-points.ts';
import { bitmapsOf } from './running-view.ts';
import { hasNoMonitor } from './run-monitor.ts';
import type { Outcome, RunState } from './run-states.ts';
import { stoppedOutcome, takeOfStopped } from './stopped-checkpoint.ts';
import { endTemporaries } from './temporaries.ts';

export async function createOrAdopt(context: Context, asked: CheckpointSpec, freezer: Freezer): Promise<Checkpoint> {
  // A reference point of another lineage is not ours to stop (invariant 1).
  const spec = { ...asked, base: asked.base?.lineage === asked.lineage ? asked.base : null };
  configOf(context, spec.vm);
  const state = await context.states.load(spec.run);
  if (state && state.phase !== 'creating') {
    await assertHeld(context, state);
    await show(context, state);
    return state.checkpoint!;
  }
  if (state && (await isComplete(context, state))) return await settle(context, state, unrecordedOutcome(state));
  if (state) await discardRun(context, state);
  await discardDeadRuns(context, spec);
  try {
    return await take(context, spec, freezer);
  } catch (error) {
    await undo(context, spec.run);
    throw error;
  }
}

async function take(context: Context, spec: CheckpointSpec, freezer: Freezer): Promise<Checkpoint> {
  try {
    return await takeOfRunning(context, spec, freezer);
  } catch (error) {
    // Stopped in the middle of it is no VM that is off: that is for the next try to find.
    if (errorCodeOf(error) !== 'VM_OFF' || (await context.states.load(spec.run))) throw error;
    return await takeOfStopped(context, spec);
  }
}

/** What cannot be undone now is found by the next try, by the undo verbs, or by the next session. */
async function undo(context: Context, run: RunKey): Promise<void> {
  try {
    const state = await context.states.load(run);
    if (state) await discardRun(context, state);
  } catch (error) {
    context.seams.log.warn('a failed checkpoint could not be undone yet', { run, cause: messageOf(error) });
  }
}

/** Whether a first try got as far as the instant, on all disks, and still holds it. */
async function isComplete(context: Context, state: RunState): Promise<boolean> {
  // What cannot be known to be consistent is no checkpoint for who requires it.
  if (state.consistency === 'require' || (await whyNotHeld(context, state)) !== null) return false;
  const bitmaps = await withHolder(context, state, async (monitor) => bitmapsOf(await queryNodes(monitor)));
  const has = (name: string, node: string): boolean => bitmaps.some((one) => one.name === name && one.node === node);
  return state.disks.every((disk) => disk.bitmap === null || has(disk.bitmap, holderNode(state, disk)));
}

function unrecordedOutcome(state: RunState): Outcome {
  if (state.heldBy === 'daemon') return stoppedOutcome(state);
  if (state.consistency === 'none') return { reached: 'crash', frozenMs: null };
  const message = 'the worker ended before it could write down whether the guest was frozen at the instant';
  return { reached: 'crash', frozenMs: null, reachedWhy: { code: 'OUTCOME_UNKNOWN', message } };
}

export async function findHeld(context: Context, run: RunKey): Promise<Checkpoint | null> {
  const state = await context.states.load(run);
  if (state?.phase !== 'taken' || (await whyNotHeld(context, state)) !== null) return null;
  return state.checkpoint;
}

/** CHECKPOINT_LOST, or SCRATCH_FULL where that is why: it is not, or no more, as it was taken. */
async function assertHeld(context: Context, state: RunState): Promise<void> {
  const { run, phase, lost } = state;
  if (phase === 'lost') throw lostError(run, lost?.message ?? 'it was not held to its end', lost?.code);
  if (phase !== 'taken') throw lostError(run, 'it was released');
  const why = await whyNotHeld(context, state);
  if (why !== null) throw lostError(run, why);
}

function lostError(run: RunKey, why: string, code?: string): TidemarkError {
  const known = code === 'SCRATCH_FULL' ? code : 'CHECKPOINT_LOST';
  return new TidemarkError(known, `the checkpoint of run ${run} is not held any more: ${why}`, { run });
}

/** NOT_FOUND: the checkpoint has no such disk. */
export async function openDisk(context: Context, run: RunKey, diskKey: DiskKey): Promise<DiskAccess> {
  const state = await context.states.load(run);
  if (!state?.checkpoint) throw lostError(run, 'there is none');
  await assertHeld(context, state);
  const disk = state.disks.find(({ facts }) => facts.diskKey === diskKey);
  if (!disk) throw new TidemarkError('NOT_FOUND', `checkpoint of run ${run} has no disk ${diskKey}`, { run, diskKey });
  await serve(context, state);
  const at = await endpointOf(context, state);
  if (!at) throw lostError(run, 'the storage daemon was ended or killed');
  const { sizeBytes, identity } = disk.facts;
  const data = { via: 'nbd' as const, at, export: diskKey, maxConnections: CONNECTIONS_PER_DISK };
  const tracked = disk.verdict.use === 'changes' && disk.base !== null;
  const changes = tracked
    ? { via: 'nbd' as const, at, export: diskKey, context: `qemu:dirty-bitmap:${disk.base}` }
    : null;
  const brakes = brakesFor(context.host, disk.file);
  return { run, diskKey, sizeBytes, identity, writable: false, data, changes, ...brakes };
}

/** Ends all connections. Of one reader they cannot be told from those of others, and end with the release. */
export async function closeDisks(context: Context, run: RunKey): Promise<void> {
  const state = await context.states.load(run);
  if (!state || state.phase === 'released') return;
  const remove = withHolder(context, state, (monitor) =>
    removeExports(monitor, isOfRun(context, run, ['exp']), context.seams.clock),
  );
  await remove.catch((error: unknown) => {
    // Of a VM that is not in the configuration any more they end with the checkpoint.
    if (!hasNoMonitor(error)) throw error;
  });
}

/**
 * CHECKPOINT_LOST, SCRATCH_FULL: it was not held to its end, so what was read of it must not be sealed; this is said each
 * time, and nothing temporary is left when it is.
 */
export async function release(context: Context, run: RunKey): Promise<Released> {
  let state = await context.states.load(run);
  if (!state) return { referencePoint: null, merge: 'done' };
  if (state.phase === 'taken') {
    const why = await whyNotHeld(context, state);
    const lost = why === null ? null : { code: 'CHECKPOINT_LOST', message: why };
    state = { ...state, phase: lost ? 'lost' : 'releasing', lost };
    // Durable before the jobs end: a second try must be able to tell their end from their loss.
    await context.states.save(state);
  }
  if (state.phase !== 'released') await endTemporaries(context, state);
  if (state.phase === 'lost')
    throw lostError(run, state.lost?.message ?? 'it was not held to its end', state.lost?.code);
  if (state.phase === 'creating') return { referencePoint: null, merge: 'done' };
  if (state.phase === 'releasing') await context.states.save({ ...state, phase: 'released' });
  return { referencePoint: state.referencePoint, merge: 'done' };
}

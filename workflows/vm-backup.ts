/**
 * One VM, steps 2 to 9 of the design's table, then seal, commit, record. Whatever was begun is on the undo list before it
 * begins. A failed VM fails its workflow (so that Temporal's list tells it) with the whole result as the failure's
 * detail; a cancelled one ends as cancelled, and has recorded its result. What was sealed is never taken back: from
 * there it only goes forward.
 */
import { CancellationScope, CancelledFailure, setHandler, upsertSearchAttributes } from '@temporalio/workflow';
import type { Checkpoint, DiskFacts, Released } from '../schema/domain/hypervisor.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { OpenedRestorePoint } from '../schema/domain/restore-point.ts';
import type { VmBackupInput, VmBackupResult } from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { errorView, failureOf, viewOf } from './failures.ts';
import { stopSignal, vmProgressQuery } from './messages.ts';
import { resultAttributes } from './search-attributes.ts';
import { runAllOrCancel, sideBySide } from './side-by-side.ts';
import { tellSuspects } from './suspect-points.ts';
import { UndoList } from './undo-list.ts';
import { commitReferencePoint, finishVm, sealVm } from './vm-finish.ts';
import { VmLeases } from './vm-leases.ts';
import { VmRollback } from './vm-rollback.ts';
import { VmRun } from './vm-run.ts';
import { connectMovers, transferDisks } from './vm-transfer.ts';

export async function vmBackup(input: VmBackupInput): Promise<VmBackupResult> {
  const run = new VmRun(input);
  const way = new CancellationScope();
  setHandler(vmProgressQuery, () => run.progress());
  // A graceful stop lets go on what has begun its checkpoint; what still waits is skipped.
  setHandler(stopSignal, () => {
    if (!run.isInWork) way.cancel();
  });
  run.enter('waiting');
  const undo = new UndoList();
  try {
    await way.run(() => forward(run, undo));
  } catch (error) {
    run.fail(error);
  }
  const result = await CancellationScope.nonCancellable(() => conclude(run, undo));
  return answer(result, CancellationScope.current().consideredCancelled);
}

async function forward(run: VmRun, undo: UndoList): Promise<void> {
  const { input, workflowId } = run;
  const { sessionId, attempt, vm } = input;
  const { startedAt } = run;
  const start = { sessionId, vm: vm.vm, attempt, run: run.run, workflowId, startedAt };
  const leases = new VmLeases(run);
  await sideBySide([() => leases.acquire(undo), () => say('startVm', { queue: controlQueue })(start)]);
  const rollback = new VmRollback(run);
  // None of these four touches a guest.
  const [opened, disks] = await sideBySide([
    () => run.during('opening', () => openRestorePoint(run, undo, rollback)),
    () => run.during('inspecting', () => chooseDisks(run)),
  ]);
  await sideBySide([
    () => run.during('opening', () => declareDisks(run, opened, disks)),
    () => run.during('rehearsing', () => rehearse(run, opened, leases)),
  ]);
  const checkpoint = await takeCheckpoint(run, undo, rollback, opened, disks);
  // The guest is thawed already, within the checkpoint: what is left to do in it holds up no transfer.
  await sideBySide([
    () => run.during('checkpoint', () => thaw(run, undo)),
    () => run.during('transferring', () => transferDisks({ run, opened, checkpoint, leases })),
  ]);
  const released = await release(run);
  // Up to here a stop takes everything back; from here it only goes forward.
  if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('the session was stopped');
  await CancellationScope.nonCancellable(() => sealVm(run, undo, checkpoint, released));
}

async function openRestorePoint(run: VmRun, undo: UndoList, rollback: VmRollback): Promise<OpenedRestorePoint> {
  const { job, vm, sessionId, nominalTime } = run.input;
  undo.push('the restore point', () => rollback.abort());
  const { jobId, blockSize, compression } = job;
  const opened = await run.machines.on(
    run.repository,
    'openRestorePoint',
  )({
    run: run.run,
    lineage: run.lineage,
    vm: vm.vm,
    vmName: vm.name,
    jobId,
    sessionId,
    nominalTime,
    blockSize,
    compression,
  });
  run.restorePointId = opened.restorePointId;
  return opened;
}

async function declareDisks(run: VmRun, { restorePointId }: OpenedRestorePoint, disks: DiskFacts[]): Promise<void> {
  await run.machines.on(run.repository, 'declareDisks')({ restorePointId, run: run.run, disks });
}

async function rehearse(run: VmRun, opened: OpenedRestorePoint, leases: VmLeases): Promise<void> {
  await runAllOrCancel([...new Set(leases.proxies)].map((proxy) => () => connectMovers(run, opened, proxy)));
}

async function takeCheckpoint(
  run: VmRun,
  undo: UndoList,
  rollback: VmRollback,
  opened: OpenedRestorePoint,
  disks: DiskFacts[],
): Promise<Checkpoint> {
  const { job, vm } = run.input;
  const base = opened.base?.referencePoint ?? null;
  const consistency = job.consistency;
  // Guests first: of what follows, the thaw is undone before anything that may wait.
  undo.push('the checkpoint', () => rollback.checkpoint());
  undo.push('the thaw', () => rollback.thaw());
  run.enter('preparing-guest');
  const { preFreeze } = job.scripts;
  if (consistency !== 'none' || preFreeze !== null) {
    const prepare = { vm: vm.vm, run: run.run, consistency, script: preFreeze };
    run.note(...(await run.machines.on(run.guest, 'prepareGuest')(prepare)).warnings);
  }
  run.enter('checkpoint');
  const spec = { run: run.run, vm: vm.vm, lineage: run.lineage, disks: disks.map((disk) => disk.diskKey), base };
  const checkpoint = await run.machines.on(run.host, 'createCheckpoint')({ ...spec, consistency });
  noteCheckpoint(run, checkpoint);
  return checkpoint;
}

/** Makes sure of the thaw, and runs the script that comes directly after it. */
async function thaw(run: VmRun, undo: UndoList): Promise<void> {
  const { job, vm } = run.input;
  const { postThaw } = job.scripts;
  const of = { vm: vm.vm, run: run.run, script: postThaw };
  if (job.consistency !== 'none' || postThaw !== null)
    run.note(...(await run.machines.on(run.guest, 'thawGuest')(of)).warnings);
  undo.drop('the thaw');
}

/** The VM's disks without those the job excludes and those that cannot be in a checkpoint. */
async function chooseDisks(run: VmRun): Promise<DiskFacts[]> {
  const { vm } = run.input;
  const facts = await run.machines.on(run.host, 'inspectVm')({ vm: vm.vm });
  run.note(...facts.notes);
  const excluded = new Set(vm.excludeDisks);
  const known = new Set(facts.disks.map((disk) => disk.diskKey));
  for (const diskKey of excluded) {
    const message = known.has(diskKey)
      ? `disk ${diskKey} is excluded by the job`
      : `the job excludes disk ${diskKey}, which vm ${vm.name} does not have`;
    run.note({ level: 'info', code: 'DISK_EXCLUDED', message });
  }
  const wanted = facts.disks.filter((disk) => !excluded.has(disk.diskKey));
  if (wanted.length > 0) return wanted;
  const why = known.size === 0 ? 'it has none' : `all ${known.size} are excluded by the job`;
  throw failureOf(errorView('BAD_DISK', `vm ${vm.name} has no disk to back up: ${why}`));
}

/** What was reached and what is missing; less than asked is a warning (invariant 12). */
function noteCheckpoint(run: VmRun, checkpoint: Checkpoint): void {
  const { consistency: asked } = run.input.job;
  const { reached, reachedWhy, leftOut } = checkpoint;
  run.consistency = reached;
  if (asked !== 'none' && reached === 'crash') {
    const why = reachedWhy ?? { code: 'GUEST_FREEZE_FAILED', message: 'no reason was given' };
    run.warn(why.code, `crash-consistent only: ${why.message}`);
  }
  for (const { diskKey, why } of leftOut) run.warn(why.code, `disk ${diskKey} is left out: ${why.message}`);
}

/** Step 9: before the seal. */
async function release(run: VmRun): Promise<Released> {
  run.enter('releasing');
  return await run.machines.on(run.host, 'releaseCheckpoint')({ run: run.run });
}

/** Takes back what is left to take back, goes forward with what was sealed, and writes it all down. */
async function conclude(run: VmRun, undo: UndoList): Promise<VmBackupResult> {
  if (run.sealed) return await concludeSealed(run, undo);
  // The repository may yet say that it is sealed.
  await takeBack(run, undo);
  await finishVm(run);
  return await record(run);
}

/**
 * Of what is sealed only the leases are left to take back, once the host has committed: they never wait for the catalog's
 * rows, and the rows wait for nothing that ends well as a rule. If giving them back fails, the result is recorded again.
 */
async function concludeSealed(run: VmRun, undo: UndoList): Promise<VmBackupResult> {
  const committed = commitReferencePoint(run);
  const [result] = await sideBySide([
    async () => {
      await finishVm(run);
      await committed;
      return await record(run);
    },
    async () => {
      await committed;
      await takeBack(run, undo);
    },
  ]);
  return result.findings.length === run.findings.length ? result : await record(run);
}

/** What came of it, into the catalog and the workflow's attributes. */
async function record(run: VmRun): Promise<VmBackupResult> {
  if (run.foundSuspects) await tellSuspects(run);
  const result = resultOf(run);
  upsertSearchAttributes(resultAttributes(result.result));
  const step = run.failedStep ?? 'done';
  run.enter('done');
  await say('recordVm', { queue: controlQueue })({ sessionId: run.input.sessionId, step, result });
  return result;
}

async function takeBack(run: VmRun, undo: UndoList): Promise<void> {
  for (const { name, error } of await undo.runAll()) {
    const view = viewOf(error);
    run.warn(view.code, `${name} could not be taken back (see docs/operations.md, "Left behind"): ${view.message}`);
  }
}

function resultOf(run: VmRun): VmBackupResult {
  const { findings, error, sealed } = run;
  const worst = findings.some((finding) => finding.level === 'warning') ? 'Warning' : 'Success';
  return {
    vmId: run.input.vm.vm.vmId,
    run: run.run,
    result: sealed ? worst : 'Failed',
    restorePointId: sealed?.restorePointId ?? null,
    consistency: run.consistency,
    disks: run.diskResults(),
    findings: [...findings],
    error: sealed ? null : error,
    startedAt: run.startedAt,
    endedAt: new Date().toISOString(),
  };
}

function answer(result: VmBackupResult, isCancelled: boolean): VmBackupResult {
  const { error } = result;
  if (!error) return result;
  if (error.code === 'STOPPED' && isCancelled) throw new CancelledFailure(error.message);
  throw failureOf(error, result);
}

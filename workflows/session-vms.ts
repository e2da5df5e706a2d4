/** The VMs of a session as child workflows, so many at once as the job allows. */
import {
  ApplicationFailure,
  CancellationScope,
  CancelledFailure,
  ChildWorkflowFailure,
  isCancellation,
  startChild,
  type ChildWorkflowHandle,
} from '@temporalio/workflow';
import { runKeyOf } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import {
  type PlannedVm,
  type VmBackupInput,
  type VmBackupResult,
  vmBackupWorkflowId,
} from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { viewOf } from './failures.ts';
import { stopSignal } from './messages.ts';
import { vmAttributes } from './search-attributes.ts';
import type { SessionRun } from './session-run.ts';
import type { vmBackup } from './vm-backup.ts';

/** Resolves when all that were begun have ended; results are in `run.tally`. When stopping, no more are begun. */
export async function runVms(run: SessionRun, vms: readonly PlannedVm[], attempt: number): Promise<void> {
  const waiting = [...vms];
  const width = Math.max(1, Math.min(run.job.maxParallelVms, waiting.length));
  const work = async (): Promise<void> => {
    for (let vm = waiting.shift(); vm && !run.isStopping; vm = waiting.shift()) await runVm(run, vm, attempt);
  };
  const ended = await Promise.allSettled(Array.from({ length: width }, work));
  const stopped = ended.find((one) => one.status === 'rejected');
  if (stopped) throw stopped.reason;
}

async function runVm(run: SessionRun, vm: PlannedVm, attempt: number): Promise<void> {
  const input = inputOf(run, vm, attempt);
  const { vmId } = vm.vm;
  run.tally.begin(vmId, attempt);
  run.show();
  let result: VmBackupResult | null = null;
  try {
    result = await runChild(run, input);
    // Waits no longer than the children do: then the cancellation goes on its way.
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('the session was stopped');
  } finally {
    run.tally.end(vmId, result);
    run.children.delete(vmId);
    run.show();
  }
}

function inputOf(run: SessionRun, vm: PlannedVm, attempt: number): VmBackupInput {
  const { vms: _vms, ...job } = run.job;
  const { sessionId, startedBy } = run.input;
  const { nominalTime } = run;
  return {
    version: 1,
    sessionId,
    site: run.started!.site,
    job,
    vm,
    nominalTime,
    manual: startedBy === 'manual',
    attempt,
  };
}

function begin(run: SessionRun, input: VmBackupInput): Promise<ChildWorkflowHandle<typeof vmBackup>> {
  const { vm, job, attempt } = input;
  const workflowId = vmBackupWorkflowId(run.workflowId, vm.vm.vmId, attempt);
  return startChild<typeof vmBackup>('vmBackup', {
    workflowId,
    args: [input],
    taskQueue: controlQueue,
    parentClosePolicy: 'REQUEST_CANCEL',
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    workflowIdReusePolicy: 'REJECT_DUPLICATE',
    typedSearchAttributes: vmAttributes(input, runKeyOf(workflowId)),
    staticSummary: `VM ${vm.name} on host ${vm.vm.hostId}, job ${job.jobId}, try ${attempt}`,
    staticDetails: `Repository: ${job.repositoryId}. Consistency asked: ${job.consistency}.`,
  });
}

async function runChild(run: SessionRun, input: VmBackupInput): Promise<VmBackupResult> {
  const child = await begin(run, input).catch((error: unknown) => {
    // Cancelled before it was begun: it is none of those that were processed.
    if (isCancellation(error)) throw error;
    return error as Error;
  });
  // Its id was used by this session before it was reset: that one writes its rows itself.
  if (child instanceof Error) return resultWithout(run, input, child);
  const stop = (): Promise<void> => child.signal(stopSignal);
  run.children.set(input.vm.vm.vmId, stop);
  // The stop may have come while it was begun.
  if (run.isStopping) void stop().catch(() => undefined);
  try {
    return await child.result();
  } catch (error) {
    return resultIn(run, input, error) ?? (await CancellationScope.nonCancellable(() => recordLost(run, input, error)));
  }
}

/**
 * A child that failed carries its whole result. Of one that was cancelled the server keeps no details: it has recorded
 * itself, and the session has to know only that it was stopped.
 */
function resultIn(run: SessionRun, input: VmBackupInput, error: unknown): VmBackupResult | null {
  if (!(error instanceof ChildWorkflowFailure)) return null;
  const { cause } = error;
  if (cause instanceof CancelledFailure) return resultWithout(run, input, error);
  const told = cause instanceof ApplicationFailure ? cause.details?.[0] : null;
  return (told as VmBackupResult | null | undefined) ?? null;
}

function resultWithout(run: SessionRun, input: VmBackupInput, error: unknown): VmBackupResult {
  const { vmId } = input.vm.vm;
  const now = new Date().toISOString();
  const runKey = runKeyOf(vmBackupWorkflowId(run.workflowId, vmId, input.attempt));
  const nothing = { restorePointId: null, consistency: null, disks: [], findings: [], startedAt: now, endedAt: now };
  return { vmId, run: runKey, result: 'Failed', ...nothing, error: viewOf(error) };
}

/** A child that was terminated could say and undo nothing: its row is written for it. */
async function recordLost(run: SessionRun, input: VmBackupInput, error: unknown): Promise<VmBackupResult> {
  const result = resultWithout(run, input, error);
  await say('recordVm', { queue: controlQueue })({ sessionId: input.sessionId, step: 'done', result });
  return result;
}

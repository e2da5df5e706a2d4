/**
 * A backup session: plans, starts one `vmBackup` per VM, rolls the results up, tries failed VMs of scheduled sessions
 * again, and ends after its last child, always. A session whose result is Failed fails its workflow, one that was
 * cancelled ends as cancelled, so that Temporal's own list tells; a Warning is a completed one with the attribute.
 */
import {
  CancellationScope,
  CancelledFailure,
  condition,
  isCancellation,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { errorTable } from '../schema/domain/errors.ts';
import type { VmSummary } from '../schema/domain/hypervisor.ts';
import type { HostId } from '../schema/domain/ids.ts';
import { controlQueue, hostCtlQueue } from '../schema/domain/queues.ts';
import type { BackupSessionInput, PlannedVm, SessionErrorView } from '../schema/domain/sessions.ts';
import { type Finding, type SessionResult, worstResult } from '../schema/domain/states.ts';
import { say } from './say.ts';
import { asStartFailure, errorView, failureOf, viewOf } from './failures.ts';
import { stopSignal } from './messages.ts';
import { jobAttributes, resultAttributes } from './search-attributes.ts';
import { lineagesToRetain, retainAfter } from './session-retention.ts';
import { SessionRun } from './session-run.ts';
import { runVms } from './session-vms.ts';

/** Tries after the first, of scheduled sessions; a person who started one by hand decides for themselves. */
export const MOST_ROUNDS = 3;
const ROUND_PAUSE_MS = 10 * 60_000;

export type SessionOutcome = { result: Exclude<SessionResult, 'None'>; vms: number };

export async function backupSession(input: BackupSessionInput): Promise<SessionOutcome> {
  const run = new SessionRun(input);
  setHandler(stopSignal, () => run.stopGracefully());
  run.show();
  const { workflowId } = run;
  const startedAt = workflowInfo().startTime.toISOString();
  // Before it succeeded there is no session: its failure is the workflow's.
  const started = say('startSession', { queue: controlQueue })({ input, workflowId, startedAt });
  run.started = await started.catch((error: unknown) => {
    throw asStartFailure(error);
  });
  upsertSearchAttributes(jobAttributes(run.job));
  // Shown while the children take back what they began.
  void CancellationScope.current().cancelRequested.catch(() => run.enterAtOnce('Stopping'));
  let error: SessionErrorView | null = null;
  try {
    await work(run);
  } catch (caught) {
    error = viewOf(caught);
  }
  return CancellationScope.nonCancellable(() => conclude(run, error));
}

async function work(run: SessionRun): Promise<void> {
  await plan(run);
  run.enterPlanned();
  await runVms(run, run.tally.vms, 1);
  for (let round = 2; round <= MOST_ROUNDS + 1; round += 1) {
    const again = worthTrying(run);
    if (again.length === 0 || run.isStopping) return;
    await run.enter('WaitingRetry');
    if (await condition(() => run.isStopping, ROUND_PAUSE_MS)) return;
    await run.enter('Working');
    await runVms(run, again, round);
  }
}

async function plan(run: SessionRun): Promise<void> {
  const hosts = [...new Set(run.job.vms.map((vm) => vm.hostId))];
  const asked = await Promise.all(hosts.map(inventoryOf));
  const inventories = asked.flatMap(({ hostId, vms }) => (vms ? [{ hostId, vms }] : []));
  const silent = asked.flatMap(({ hostId, vms }) => (vms ? [] : [hostId]));
  const { sessionId } = run.input;
  const planned = await say('planSession', { queue: controlQueue })({ sessionId, inventories, silent });
  run.tally.plan(planned.vms);
  run.warnings.push(...planned.warnings, ...asked.flatMap(whyOf));
}

type Asked = { hostId: HostId; vms: VmSummary[] } | { hostId: HostId; vms: null; why: string };

/** `vms` null: the host did not answer, and the catalog's inventory serves. */
async function inventoryOf(hostId: HostId): Promise<Asked> {
  try {
    return { hostId, vms: await say('listInventory', { queue: hostCtlQueue(hostId), summary: `host ${hostId}` })() };
  } catch (error) {
    if (isCancellation(error)) throw error;
    return { hostId, vms: null, why: viewOf(error).message };
  }
}

/** What the plan's warning about the host's inventory does not say. */
const whyOf = (asked: Asked): Finding[] =>
  asked.vms ? [] : [{ level: 'info', code: 'UNREACHABLE', message: `host ${asked.hostId}: ${asked.why}` }];

/** Of scheduled sessions: failed VMs, but not those that only a person can mend. */
function worthTrying(run: SessionRun): PlannedVm[] {
  if (run.input.startedBy !== 'schedule') return [];
  return run.tally.vms.filter((vm) => {
    const result = run.tally.results.get(vm.vm.vmId);
    return result?.result === 'Failed' && result.error !== null && isMendedByTime(result.error);
  });
}

const isMendedByTime = ({ code }: SessionErrorView): boolean =>
  !['operator', 'damage'].includes(errorTable[code].disposition);

async function conclude(run: SessionRun, error: SessionErrorView | null): Promise<SessionOutcome> {
  const { sessionId } = run.input;
  const { vms, results } = run.tally;
  const unprocessed = vms.filter((vm) => !results.has(vm.vm.vmId)).map(({ vm }) => vm);
  const lineages = lineagesToRetain(run);
  await run.enterPostprocessing(unprocessed.length > 0 || lineages.length > 0);
  if (unprocessed.length > 0) await say('recordUnprocessed', { queue: controlQueue })({ sessionId, vms: unprocessed });
  if (lineages.length > 0) await retainAfter(run, lineages);
  const failure = error ?? whyFailed(run, unprocessed.length);
  const result = failure ? 'Failed' : resultOf(run);
  run.end(result, failure);
  upsertSearchAttributes(resultAttributes(result));
  const endedAt = new Date().toISOString();
  const ending = { sessionId, state: 'Stopped', result, endedAt, error: failure } as const;
  await say('updateSession', { queue: controlQueue })(ending);
  if (!failure) return { result, vms: vms.length };
  if (error?.code === 'STOPPED') throw new CancelledFailure(failure.message);
  throw failureOf(failure);
}

/** Worst VM wins; what the planning warned of makes it a Warning. */
function resultOf(run: SessionRun): Exclude<SessionResult, 'None'> {
  const warned = run.warnings.some((finding) => finding.level === 'warning');
  const worst = worstResult([...run.tally.results.values()].map((each) => each.result));
  if (worst === 'Failed') return worst;
  return warned || worst === 'Warning' ? 'Warning' : 'Success';
}

/** Why the session as a whole failed, or null. */
function whyFailed(run: SessionRun, unprocessedCount: number): SessionErrorView | null {
  const { vms, results } = run.tally;
  if (unprocessedCount > 0)
    return errorView('STOPPED', `the session was stopped before ${unprocessedCount} of ${vms.length} VMs were begun`);
  const failed = [...results.values()].filter((each) => each.result === 'Failed');
  const [first] = failed;
  if (!first) return null;
  const { code, message } = first.error ?? errorView('BUG', 'no reason was given');
  const name = vms.find(({ vm }) => vm.vmId === first.vmId)?.name ?? first.vmId;
  const others = failed.length > 1 ? `; ${failed.length - 1} more failed` : '';
  return errorView(code, `vm ${name}: ${message}${others}`);
}

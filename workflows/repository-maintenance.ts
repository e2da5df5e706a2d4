/**
 * Maintenance of one repository, by a Schedule or by hand: its steps one after another, behind a slot of the repository
 * that it gives up between two of them when sessions wait. A step that fails does not keep the others; damage that is
 * found fails the session, so that nobody overlooks it. However many restore points there are, its history stays short: it
 * goes on as a new run of the same workflow, between two pages of a step.
 */
import {
  CancellationScope,
  CancelledFailure,
  ContinueAsNew,
  isCancellation,
  setHandler,
  sleep,
  upsertSearchAttributes,
} from '@temporalio/workflow';
import type {
  MaintenanceResult,
  MaintenanceStep,
  RepositoryMaintenanceInput,
} from '../schema/domain/maintenance-sessions.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { SessionErrorView } from '../schema/domain/sessions.ts';
import { failureOf, viewOf, wasNotTakenUp } from './failures.ts';
import { MaintenanceRun } from './maintenance-run.ts';
import { maintenanceStepWork } from './maintenance-steps.ts';
import { maintenanceProgressQuery } from './messages.ts';
import { RepositoryLease } from './repository-lease.ts';
import { say } from './say.ts';
import { maintenanceAttributes, resultAttributes, stateAttributes } from './search-attributes.ts';

const FIRST_PAUSE_MS = 60_000;
const LONGEST_PAUSE_MS = 10 * 60_000;
const LONGEST_WAIT_MS = 12 * 3_600_000;

export async function repositoryMaintenance(input: RepositoryMaintenanceInput): Promise<MaintenanceResult> {
  const run = new MaintenanceRun(input);
  setHandler(maintenanceProgressQuery, () => run.progress());
  upsertSearchAttributes(maintenanceAttributes(input.repositoryId));
  if (!run.goesOn) await begin(run);
  const lease = new RepositoryLease(run);
  try {
    await work(run, lease);
  } catch (error) {
    if (error instanceof ContinueAsNew) throw error;
    run.fail(viewOf(error));
  }
  return CancellationScope.nonCancellable(() => conclude(run, lease));
}

/** Of a Schedule: behind another that somebody has started, or what it is there for would not be done before the next night. */
async function begin(run: MaintenanceRun): Promise<void> {
  const givesUpAt = Date.now() + LONGEST_WAIT_MS;
  let pauseMs = FIRST_PAUSE_MS;
  for (;;) {
    const refusal = await tryToBegin(run);
    if (refusal === null) break;
    const isPatient = refusal.code === 'ALREADY_RUNNING' && run.input.startedBy === 'schedule';
    // Before it succeeded there is no session: its failure is the workflow's.
    if (!isPatient || Date.now() >= givesUpAt) throw failureOf(refusal);
    run.waits.tell('the session', refusal.message);
    await sleep(pauseMs);
    pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS);
  }
  run.waits.tell('the session', null);
}

/** Why it was refused; null: it has begun. */
async function tryToBegin(run: MaintenanceRun): Promise<SessionErrorView | null> {
  const { workflowId, startedAt } = run;
  try {
    await say('startMaintenance', { queue: controlQueue })({ input: run.input, workflowId, startedAt });
    return null;
  } catch (error) {
    if (isCancellation(error)) throw error;
    return viewOf(error);
  }
}

async function work(run: MaintenanceRun, lease: RepositoryLease): Promise<void> {
  // The lease is the workflow's, whichever run of it goes on.
  if (!run.goesOn) await lease.take();
  upsertSearchAttributes(stateAttributes('Working'));
  run.enter('Working');
  const { sessionId, steps } = run.input;
  if (!run.goesOn)
    await say('updateSession', { queue: controlQueue, summary: 'Working' })({ sessionId, state: 'Working' });
  for (const [index, step] of steps.entries()) {
    const state = run.stateOf(step);
    if (state === 'done' || state === 'failed') continue;
    if (index > 0 && state === 'waiting') await lease.giveWay();
    await takeStep(run, step);
  }
}

async function takeStep(run: MaintenanceRun, step: MaintenanceStep): Promise<void> {
  run.step(step, 'working');
  try {
    const summary = await maintenanceStepWork[step](run);
    run.step(step, 'done', summary);
  } catch (error) {
    if (error instanceof ContinueAsNew) throw error;
    const view = viewOf(error);
    run.step(step, 'failed', view.message);
    // A repository that is away is so for the other steps, too.
    if (isCancellation(error) || wasNotTakenUp(error)) throw error;
    run.fail({ ...view, message: `${step}: ${view.message}` });
  }
}

async function conclude(run: MaintenanceRun, lease: RepositoryLease): Promise<MaintenanceResult> {
  // The sweep frees what is not given back; what was found must be told.
  await lease.giveBack().catch((error: unknown) => run.note({ level: 'warning', ...viewOf(error) }));
  run.leaveOutTheRest();
  const { findings, error } = run;
  const { sessionId } = run.input;
  const result = error ? 'Failed' : findings.some(({ level }) => level === 'warning') ? 'Warning' : 'Success';
  upsertSearchAttributes(resultAttributes(result));
  run.enter('Stopped');
  if (findings.length > 0)
    await say('recordFindings', { queue: controlQueue })({ sessionId, about: 'maintenance', findings });
  const endedAt = new Date().toISOString();
  await say('updateSession', { queue: controlQueue })({ sessionId, state: 'Stopped', result, endedAt, error });
  if (!error) return { result, findings, error };
  if (error.code === 'STOPPED') throw new CancelledFailure(error.message);
  throw failureOf(error);
}

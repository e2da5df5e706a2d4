/**
 * A restore to files: a session like a backup's, durable and resumable. Each disk goes on from its cursor; nothing looks
 * finished before it is (`NAME.partial` until all are whole).
 */
import {
  CancellationScope,
  CancelledFailure,
  setCurrentDetails,
  setHandler,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { runKeyOf } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { RestoreSessionInput, RestoreSessionResult } from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { asStartFailure, failureOf, viewOf } from './failures.ts';
import { restoreProgressQuery } from './messages.ts';
import { RestoreRun } from './restore-run.ts';
import { restoreDisks } from './restore-disks.ts';
import { resultAttributes, stateAttributes } from './search-attributes.ts';
import { UndoList } from './undo-list.ts';

export async function restoreSession(input: RestoreSessionInput): Promise<RestoreSessionResult> {
  const { workflowId, startTime } = workflowInfo();
  const startedAt = startTime.toISOString();
  // Before it succeeded there is no session: its failure is the workflow's.
  const begun = say('startRestore', { queue: controlQueue })({ input, workflowId, startedAt });
  const started = await begun.catch((error: unknown) => {
    throw asStartFailure(error);
  });
  const run = new RestoreRun(input, started, runKeyOf(workflowId), (text) => setCurrentDetails(text));
  setHandler(restoreProgressQuery, () => run.progress());
  upsertSearchAttributes(stateAttributes('Working'));
  const undo = new UndoList();
  try {
    await restoreDisks(run, undo);
  } catch (error) {
    run.error = viewOf(error);
  }
  return CancellationScope.nonCancellable(() => conclude(run, undo));
}

async function conclude(run: RestoreRun, undo: UndoList): Promise<RestoreSessionResult> {
  if (run.error) run.enter('undoing');
  for (const { name, error } of await undo.runAll()) {
    const { code, message } = viewOf(error);
    run.note({ level: 'warning', code, message: `${name} could not be taken back: ${message}` });
  }
  run.enter('done');
  const { sessionId } = run.input;
  const { disks, findings, error } = run;
  const result = error ? 'Failed' : findings.some(({ level }) => level === 'warning') ? 'Warning' : 'Success';
  upsertSearchAttributes(resultAttributes(result));
  await say('recordRestore', { queue: controlQueue })({ sessionId, disks: error ? [] : disks, findings });
  const endedAt = new Date().toISOString();
  await say('updateSession', { queue: controlQueue })({ sessionId, state: 'Stopped', result, endedAt, error });
  if (!error) return { result, disks, findings, error };
  if (error.code === 'STOPPED') throw new CancelledFailure(error.message);
  throw failureOf(error);
}

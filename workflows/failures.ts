/** What a failure in a workflow means to a person: code, message, hint of the error table. */
import {
  ActivityFailure,
  ApplicationFailure,
  ChildWorkflowFailure,
  isCancellation,
  TerminatedFailure,
  TimeoutFailure,
} from '@temporalio/workflow';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { errorTable, isErrorCode, messageOf, type ErrorCode } from '../schema/domain/errors.ts';
import { machineOfQueue } from '../schema/domain/queues.ts';
import type { SessionErrorView, TransferHeartbeat } from '../schema/domain/sessions.ts';

export const errorView = (code: ErrorCode, message: string): SessionErrorView => ({
  code,
  message,
  hint: errorTable[code].hint,
});

const askedQueues = new WeakMap<object, string>();

/** Keeps with the failure of an activity which machine was asked: Temporal does not. Gives the error back. */
export function noteAsked(error: unknown, queue: string): unknown {
  if (error instanceof ActivityFailure) askedQueues.set(error, queue);
  return error;
}

export function viewOf(error: unknown): SessionErrorView {
  if (isCancellation(error)) return errorView('STOPPED', 'the session was stopped');
  if (error instanceof ChildWorkflowFailure) return viewOf(error.cause);
  if (error instanceof ActivityFailure) return viewOfActivity(error);
  if (error instanceof ApplicationFailure) return viewOfApplication(error);
  if (error instanceof WorkflowExecutionAlreadyStartedError)
    return errorView('ALREADY_RUNNING', `workflow ${error.workflowId} was begun before this session was reset`);
  if (error instanceof TerminatedFailure) return errorView('STOPPED', 'its workflow was terminated');
  return errorView('BUG', messageOf(error));
}

function viewOfActivity(failure: ActivityFailure): SessionErrorView {
  const { cause, activityType } = failure;
  if (!(cause instanceof TimeoutFailure)) return viewOf(cause);
  // The last try's own error says more than that time ran out over it.
  if (cause.cause instanceof ApplicationFailure) return viewOfApplication(cause.cause);
  const queue = askedQueues.get(failure);
  const machine = queue === undefined ? 'the machine asked' : machineOfQueue(queue);
  const why =
    cause.timeoutType === 'SCHEDULE_TO_START'
      ? 'did not take it up in time'
      : cause.timeoutType === 'HEARTBEAT'
        ? 'was lost over it (no heartbeat)'
        : 'did not end it in time';
  return errorView('UNREACHABLE', `${activityType}: ${machine} ${why}`);
}

function viewOfApplication(failure: ApplicationFailure): SessionErrorView {
  const code: ErrorCode = isErrorCode(failure.type ?? '') ? (failure.type as ErrorCode) : 'BUG';
  return errorView(code, failure.message);
}

/** What ends a workflow: Temporal's list shows it as failed, with the code as the type. */
export const failureOf = ({ code, message, hint }: SessionErrorView, ...details: unknown[]): ApplicationFailure =>
  ApplicationFailure.create({
    type: code,
    message,
    nonRetryable: true,
    details: details.length > 0 ? details : [{ hint }],
  });

/** What the beginning of a session throws: a cancellation as it is, all else by its code. */
export const asStartFailure = (error: unknown): unknown => (isCancellation(error) ? error : failureOf(viewOf(error)));

/** The machine did not take up `verb`, or (null) none of its verbs, within the bound to start. */
export const wasNotTakenUp = (error: unknown, verb: string | null = null): boolean =>
  error instanceof ActivityFailure &&
  error.cause instanceof TimeoutFailure &&
  error.cause.timeoutType === 'SCHEDULE_TO_START' &&
  (verb === null || error.activityType === verb);

/** What a transfer or restore last told before it was lost, or failed (then its second detail); undefined when nothing is known. */
export function lastHeartbeatOf(error: unknown): Partial<TransferHeartbeat> | undefined {
  if (!(error instanceof ActivityFailure)) return undefined;
  const { cause } = error;
  const told: unknown = cause instanceof TimeoutFailure ? cause.lastHeartbeatDetails : detailsOf(cause)[1];
  return told ?? undefined;
}

const detailsOf = (cause: unknown): readonly unknown[] =>
  (cause instanceof ApplicationFailure ? cause.details : null) ?? [];

/** Whether another try of the same work may end otherwise. */
export const isWorthAnotherTry = (view: SessionErrorView): boolean =>
  errorTable[view.code].disposition === 'retry-here' ||
  errorTable[view.code].disposition === 'retry-elsewhere' ||
  view.code === 'BUG';

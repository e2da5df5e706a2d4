/** What a failure in a workflow means to a person: code, message, hint of the error table. */
import {
  ActivityFailure,
  ApplicationFailure,
  ChildWorkflowFailure,
  isCancellation,
  TimeoutFailure,
} from '@temporalio/workflow';
import { errorTable, isErrorCode, messageOf, type ErrorCode } from '../schema/domain/errors.ts';
import type { SessionErrorView } from '../schema/domain/sessions.ts';

export const errorView = (code: ErrorCode, message: string): SessionErrorView => ({
  code,
  message,
  hint: errorTable[code].hint,
});

/** `where`: the machine that was asked, e.g. "host h1". */
export function viewOf(error: unknown, where = 'the machine asked'): SessionErrorView {
  if (isCancellation(error)) return errorView('STOPPED', 'the session was stopped');
  if (error instanceof ChildWorkflowFailure) return viewOf(error.cause, where);
  if (error instanceof ActivityFailure) return viewOfActivity(error, where);
  if (error instanceof ApplicationFailure) return viewOfApplication(error);
  return errorView('BUG', messageOf(error));
}

function viewOfActivity(failure: ActivityFailure, where: string): SessionErrorView {
  const { cause, activityType } = failure;
  if (!(cause instanceof TimeoutFailure)) return viewOf(cause, where);
  // The last try's own error says more than that time ran out over it.
  if (cause.cause instanceof ApplicationFailure) return viewOfApplication(cause.cause);
  const why =
    cause.timeoutType === 'SCHEDULE_TO_START'
      ? 'did not take it up in time'
      : cause.timeoutType === 'HEARTBEAT'
        ? 'was lost over it (no heartbeat)'
        : 'did not end it in time';
  return errorView('UNREACHABLE', `${activityType}: ${where} ${why}`);
}

function viewOfApplication(failure: ApplicationFailure): SessionErrorView {
  const code: ErrorCode = isErrorCode(failure.type ?? '') ? (failure.type as ErrorCode) : 'BUG';
  return errorView(code, failure.message);
}

export const timeoutTypeOf = (error: unknown): TimeoutFailure['timeoutType'] | null =>
  error instanceof ActivityFailure && error.cause instanceof TimeoutFailure ? error.cause.timeoutType : null;

/** What the activity last told before it was lost; undefined when nothing is known. */
export function lastHeartbeatOf(error: unknown): unknown {
  if (!(error instanceof ActivityFailure) || !(error.cause instanceof TimeoutFailure)) return undefined;
  return error.cause.lastHeartbeatDetails;
}

/** Whether another try of the same work may end otherwise. */
export const isWorthAnotherTry = (view: SessionErrorView): boolean =>
  errorTable[view.code].disposition === 'retry-here' ||
  errorTable[view.code].disposition === 'retry-elsewhere' ||
  view.code === 'BUG';

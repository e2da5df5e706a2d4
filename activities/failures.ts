/** Between our errors and Temporal's: the failure's type is the error code, so that workflows can tell them apart. */
import { ApplicationFailure, ApplicationFailureCategory, CancelledFailure } from '@temporalio/common';
import { errorCodeOf, errorTable, messageOf, type ErrorCode } from '../schema/domain/errors.ts';

const retried = new Set(['retry-here', 'retry-elsewhere']);

/** Also for errors of threads and other processes, whose class is lost but whose code is not. No code: BUG, retried. */
export function toFailure(error: unknown): Error {
  if (error instanceof ApplicationFailure || error instanceof CancelledFailure) return error;
  const known = errorCodeOf(error);
  const code: ErrorCode = known ?? 'BUG';
  const { disposition, hint } = errorTable[code];
  const details = (error as { details?: unknown } | null)?.details ?? {};
  return ApplicationFailure.create({
    message: messageOf(error),
    type: code,
    nonRetryable: known !== undefined && !retried.has(disposition),
    details: [{ hint, ...(details as Record<string, unknown>) }],
    ...(error instanceof Error ? { cause: error } : {}),
    ...(code === 'NO_CAPACITY' ? { category: ApplicationFailureCategory.BENIGN, nextRetryDelay: '1 s' } : {}),
  });
}

type Verbs = Record<string, (input: never) => Promise<unknown>>;

/** The same activities; what they throw goes through `translate`. */
export function withErrors<A extends Verbs>(activities: A, translate: (error: unknown) => unknown): A {
  const wrapped = Object.entries(activities).map(([name, verb]) => [
    name,
    async (input: never) => {
      try {
        return await verb(input);
      } catch (error) {
        throw translate(error);
      }
    },
  ]);
  return Object.fromEntries(wrapped) as A;
}

/** Errors as Temporal takes them. */
export const translating = <A extends Verbs>(activities: A): A => withErrors(activities, toFailure);

/** What the exit code of every command means. */
import type { ErrorCode } from '../schema/domain/errors.ts';

export const exitCodes = {
  /** Done; of a session: result Success. */
  ok: 0,
  /** Failed; of a session: result Failed. */
  failed: 1,
  /** The request or a configuration file is wrong; nothing was changed. */
  badRequest: 2,
  /** Done, but less than was asked; of a session: result Warning. */
  warning: 3,
  /** The stack, or what was to be reached, does not run. */
  notRunning: 4,
  /** Ended by Ctrl-C. */
  interrupted: 130,
} as const;

const badRequests: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'BAD_CONFIG',
  'BAD_REQUEST',
  'NOT_FOUND',
  'JOB_NOT_FOUND',
  'JOB_TOO_LARGE',
  'RESOURCE_REMOVED',
  'VM_NOT_FOUND',
  'RESTORE_POINT_NOT_FOUND',
  'RESTORE_POINT_HELD',
  'LAST_RESTORE_POINT',
  'TARGET_EXISTS',
  'TARGET_NOT_ALLOWED',
  'STACK_RUNNING',
  'REPOSITORY_NOT_ONE',
  'REPOSITORY_IN_USE',
  'REPOSITORY_NEWER',
  'REPOSITORY_OLDER',
  'MISSING_TOOL',
  'KEY_MISSING',
  'NOT_ENCRYPTED',
  'WRONG_KEY',
  'SECURITY_NOT_READY',
  'ENROLL_REFUSED',
  'CERTIFICATE_INVALID',
]);

export function exitCodeOf(code: ErrorCode | undefined): number {
  if (code === 'STACK_NOT_RUNNING' || code === 'UNREACHABLE') return exitCodes.notRunning;
  return code !== undefined && badRequests.has(code) ? exitCodes.badRequest : exitCodes.failed;
}

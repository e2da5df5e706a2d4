/**
 * Every timeout and retry in one table. `attempts` absent means without limit: a policy of 0 attempts
 * makes the workflow task fail without a word in the log.
 */
import type { ActivityOptions } from '@temporalio/workflow';
import type { ErrorCode } from '../schema/domain/errors.ts';

type Bounds = {
  toStart?: ActivityOptions['scheduleToStartTimeout'];
  attempt: NonNullable<ActivityOptions['startToCloseTimeout']>;
  heartbeat?: ActivityOptions['heartbeatTimeout'];
  toClose?: ActivityOptions['scheduleToCloseTimeout'];
  attempts?: number;
  never?: readonly ErrorCode[];
};

const options = (bounds: Bounds): ActivityOptions => ({
  startToCloseTimeout: bounds.attempt,
  ...(bounds.toStart === undefined ? {} : { scheduleToStartTimeout: bounds.toStart }),
  ...(bounds.heartbeat === undefined ? {} : { heartbeatTimeout: bounds.heartbeat }),
  ...(bounds.toClose === undefined ? {} : { scheduleToCloseTimeout: bounds.toClose }),
  cancellationType: 'WAIT_CANCELLATION_COMPLETED',
  retry: {
    initialInterval: '1 s',
    maximumInterval: '30 s',
    ...(bounds.attempts === undefined ? {} : { maximumAttempts: bounds.attempts }),
    ...(bounds.never === undefined ? {} : { nonRetryableErrorTypes: [...bounds.never] }),
  },
});

const never = { vm: ['VM_NOT_FOUND'], seal: ['NOT_CONSERVED', 'FENCED'] } as const;

export const activityOptions = {
  /** A killed control worker costs one attempt. */
  confirmLeases: options({ attempt: '15 s', toClose: '30 min', never: ['LEASE_LOST'] }),
  /** 60 s hold and a margin. */
  acquireResources: options({ attempt: '75 s', heartbeat: '30 s', never: ['VM_NOT_FOUND', 'RESOURCE_REMOVED'] }),
  releaseResources: options({ attempt: '10 s', toClose: '10 min' }),
  /** No other machine can stand in: it waits for this one. */
  repositoryControl: options({
    toStart: '15 min',
    attempt: '30 s',
    attempts: 5,
    never: ['REPOSITORY_FULL', 'RESTORE_POINT_SEALED'],
  }),
  connectMovers: options({ toStart: '60 s', attempt: '30 s', attempts: 3 }),
  /** Reads only. */
  inspectVm: options({ toStart: '15 min', attempt: '60 s', attempts: 5, never: never.vm }),
  /** Short, so that a queued freeze is not stale; the second attempt adopts or cleans. */
  createCheckpoint: options({
    toStart: '2 min',
    attempt: '60 s',
    heartbeat: '10 s',
    attempts: 2,
    never: ['GUEST_REQUIRED', 'SCRATCH_FULL'],
  }),
  openAccess: options({ toStart: '2 min', attempt: '60 s', attempts: 5, never: ['CHECKPOINT_LOST'] }),
  /** The workflow loops: each attempt needs its own fence. */
  transferDisk: options({ toStart: '60 s', attempt: '48 h', heartbeat: '30 s', attempts: 1 }),
  /** Release, commit, discard, close. */
  hostUndo: options({ attempt: '2 min', heartbeat: '30 s', toClose: '10 min', attempts: 10, never: ['NOT_OURS'] }),
  /** Idempotent by run key. */
  seal: options({ toStart: '15 min', attempt: '10 min', heartbeat: '30 s', attempts: 10, never: never.seal }),
  /** Can be rebuilt from the repository, and holds no lease. */
  recordRestorePoint: options({ attempt: '15 s', toClose: '24 h' }),
} as const satisfies Record<string, ActivityOptions>;

/**
 * Every timeout and retry in one table, a row per activity. `attempts` absent means without limit: a policy of 0 attempts
 * makes the workflow task fail without a word in the log.
 */
import type { ActivityOptions } from '@temporalio/workflow';
import type { Activities } from '../activities/contract.ts';
import type { ErrorCode } from '../schema/domain/errors.ts';

/** Milliseconds, or words such as "10 min". */
type Duration = string | number;

type Bounds = {
  /** "machine": no other machine can stand in, so it waits for this one, up to the job's `hostWaitMs`. */
  toStart?: Duration;
  attempt: Duration;
  heartbeat?: Duration;
  toClose?: Duration;
  attempts?: number;
  never?: readonly ErrorCode[];
};

/** A proxy's slots granted never exceed its worker's, so work waits for none: whoever misses this is asked after. */
export const PROXY_START_MS = 60_000;

const sealed = ['NOT_CONSERVED', 'FENCED', 'RESTORE_POINT_ABORTED'] as const;
/** A killed control worker costs one attempt. */
const control: Bounds = { attempt: '15 s', toClose: '30 min' };
/** Rows for people: a catalog that is down for a day loses none of them. */
const record: Bounds = { attempt: '15 s', toClose: '24 h' };
/** Idempotent, short, on a machine that nobody can stand in for. */
const onMachine: Bounds = { toStart: 'machine', attempt: '60 s', attempts: 5 };
/** Work on all that a repository keeps. */
const longWork: Bounds = { toStart: 'machine', attempt: '48 h', heartbeat: '60 s', attempts: 5 };
/** Removing verbs: tried for 10 min, then left behind with a warning. */
const undo: Bounds = { attempt: '2 min', heartbeat: '30 s', toClose: '10 min', attempts: 10, never: ['NOT_OURS'] };
/** A script is named by its run: asked for again, the guest keeper gives the result it has. The heartbeat lets it be stopped. */
const script: Bounds = { toStart: '5 min', attempt: '11 min', heartbeat: '30 s', attempts: 3, toClose: '30 min' };

export const activityBounds = {
  startSession: { ...control, never: ['JOB_NOT_FOUND', 'ALREADY_RUNNING', 'BAD_CONFIG'] },
  /** A host that is silent costs the session this long, then the catalog's inventory serves. */
  listInventory: { toStart: '20 s', attempt: '60 s', attempts: 2 },
  planSession: { ...control, attempt: '60 s', never: ['JOB_NOT_FOUND', 'JOB_TOO_LARGE', 'VM_NOT_FOUND', 'BAD_CONFIG'] },
  updateSession: record,
  startVm: control,
  recordVm: record,
  recordUnprocessed: record,
  /** Can be rebuilt from the repository, and holds no lease. */
  recordRestorePoint: record,
  /** 60 s hold and a margin. */
  acquireResources: { attempt: '75 s', heartbeat: '30 s', never: ['VM_NOT_FOUND', 'RESOURCE_REMOVED'] },
  confirmLeases: { ...control, never: ['LEASE_LOST'] },
  releaseResources: { attempt: '10 s', toClose: '10 min' },
  probeQueue: { attempt: '10 s', attempts: 2 },
  startRestore: {
    ...control,
    never: ['RESTORE_POINT_NOT_FOUND', 'NOT_FOUND', 'TARGET_NOT_ALLOWED', 'RESOURCE_REMOVED'],
  },
  recordRestore: record,
  startMaintenance: { ...control, never: ['NOT_FOUND', 'ALREADY_RUNNING'] },
  /** Only decides who goes first. */
  othersWait: { attempt: '10 s', attempts: 2 },
  planRetention: control,
  recordMaintenance: record,
  recordFindings: record,
  /** The night's maintenance finds what this one could not say. */
  recordRetention: control,
  /** A thousand rows, each perhaps with a statement of its own. */
  reconcileRestorePoints: { attempt: '2 min', toClose: '1 h' },
  importRestorePoints: { attempt: '2 min', toClose: '1 h' },
  recordRestorePointChange: record,
  recordSuspects: record,
  /** The janitor comes again in five minutes. */
  listSiteParts: { attempt: '15 s', attempts: 3 },
  judgeRuns: { attempt: '2 min', attempts: 2 },
  recordJanitor: control,

  /** Reads only. */
  inspectVm: { ...onMachine, never: ['VM_NOT_FOUND'] },
  /** Short, so that a queued freeze is not stale; the second attempt adopts or cleans. */
  createCheckpoint: {
    toStart: '2 min',
    attempt: '60 s',
    heartbeat: '10 s',
    attempts: 2,
    never: ['GUEST_REQUIRED', 'SCRATCH_FULL', 'VM_NOT_FOUND', 'VM_OFF'],
  },
  openAccess: { ...onMachine, never: ['CHECKPOINT_LOST', 'NOT_FOUND'] },
  releaseCheckpoint: { ...undo, never: ['NOT_OURS', 'CHECKPOINT_LOST', 'SCRATCH_FULL'] },
  commitReferencePoint: undo,
  discardReferencePoint: undo,
  /** Of a host that is silent nothing is removed, and the others are not kept waiting. */
  listArtifactRuns: { toStart: '20 s', attempt: '2 min', heartbeat: '30 s', attempts: 1 },
  removeArtifacts: { toStart: '20 s', attempt: '2 min', heartbeat: '30 s', attempts: 1 },

  prepareGuest: script,
  thawGuest: script,
  completeGuest: script,

  openRestorePoint: { ...onMachine, attempt: '30 s', never: ['REPOSITORY_FULL', 'RESTORE_POINT_SEALED'] },
  declareDisks: { ...onMachine, attempt: '30 s', never: ['REPOSITORY_FULL'] },
  assignTransfer: { ...onMachine, attempt: '30 s', never: ['FENCED', 'RESTORE_POINT_ABORTED'] },
  /** Idempotent by run key. */
  sealRestorePoint: { toStart: 'machine', attempt: '10 min', heartbeat: '30 s', attempts: 10, never: sealed },
  abortRestorePoint: { attempt: '2 min', heartbeat: '30 s', toClose: '10 min', attempts: 10 },
  openRestore: { ...onMachine, attempt: '30 s', never: ['RESTORE_POINT_NOT_FOUND'] },
  /** After a session, too, which is not to wait for it for long: what it does not do the night does. */
  applyRetention: { toStart: '5 min', attempt: '10 min', heartbeat: '30 s', attempts: 3 },
  listRestorePoints: onMachine,
  listSuspects: onMachine,
  describeRestorePoints: onMachine,
  /** A person waits for it. What is brought back from a large trash takes minutes. */
  changeRestorePoint: {
    toStart: '30 s',
    attempt: '10 min',
    heartbeat: '30 s',
    attempts: 3,
    never: ['RESTORE_POINT_NOT_FOUND', 'RESTORE_POINT_HELD', 'LAST_RESTORE_POINT', 'ALREADY_RUNNING'],
  },
  /** It waits for a collection to end; a person waits for it. */
  resetClock: { toStart: '30 s', attempt: '10 min', heartbeat: '30 s', attempts: 3 },
  /** The janitor's. */
  listOpenRestorePoints: { toStart: '20 s', attempt: '30 s', attempts: 2 },
  namedRuns: { toStart: '20 s', attempt: '30 s', attempts: 2 },
  /** Each begins anew, or goes on where it was. */
  collectGarbage: longWork,
  checkRepository: longWork,
  repairRepository: longWork,
  measureRepository: { ...longWork, attempt: '1 h' },

  /** 2.5 min in all: the repository's movers may be about to come back. */
  connectMovers: { toStart: 'machine', attempt: '30 s', attempts: 10 },
  /** The workflow loops: each attempt needs its own fence. */
  transferDisk: { toStart: PROXY_START_MS, attempt: '48 h', heartbeat: '30 s', attempts: 1 },
  /** Likewise; a restore goes on from its cursor. */
  restoreDisk: { toStart: PROXY_START_MS, attempt: '48 h', heartbeat: '30 s', attempts: 1 },
  createTargets: { ...onMachine, never: ['TARGET_EXISTS', 'TARGET_NOT_ALLOWED', 'STORAGE_ERROR'] },
  finishTargets: { ...onMachine, attempt: '10 min', heartbeat: '30 s', never: ['TARGET_EXISTS'] },
  discardTargets: undo,
} as const satisfies Record<keyof Activities, Bounds>;

/** Options of one call. `machineWaitMs`: how long a machine that nobody can stand in for is waited for. */
export function optionsOf(name: keyof Activities, machineWaitMs: number): ActivityOptions {
  const bounds: Bounds = activityBounds[name];
  const toStart = bounds.toStart === 'machine' ? machineWaitMs : bounds.toStart;
  return {
    startToCloseTimeout: bounds.attempt,
    ...(toStart === undefined ? {} : { scheduleToStartTimeout: toStart }),
    ...(bounds.heartbeat === undefined ? {} : { heartbeatTimeout: bounds.heartbeat }),
    ...(bounds.toClose === undefined ? {} : { scheduleToCloseTimeout: bounds.toClose }),
    cancellationType: 'WAIT_CANCELLATION_COMPLETED',
    retry: {
      initialInterval: '1 s',
      maximumInterval: '30 s',
      ...(bounds.attempts === undefined ? {} : { maximumAttempts: bounds.attempts }),
      ...(bounds.never === undefined ? {} : { nonRetryableErrorTypes: [...bounds.never] }),
    },
  };
}

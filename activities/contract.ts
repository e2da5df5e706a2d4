/**
 * Signatures of all activities, by the task queue that serves them. Plain data in and out, one argument each, so that
 * fields can be added. Workflows see these types and nothing else of the activities.
 */
import type { FinishedTarget, TargetRequest } from '../engines/restore/targets.ts';
import type {
  BaseVerdict,
  Checkpoint,
  CheckpointSpec,
  DiskAccess,
  Endpoint,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
  VmSummary,
} from '../schema/domain/hypervisor.ts';
import type { GuestScript } from '../schema/domain/configuration.ts';
import type { DiskKey, HostId, LineageId, ProxyId, RestorePointId, RunKey, SessionId } from '../schema/domain/ids.ts';
import type {
  AbortOutcome,
  OpenedRestorePoint,
  RestorePointSpec,
  SealOutcome,
  SealRequest,
  TargetAccess,
  TransferAssignment,
  TransferRequest,
  TransferSummary,
} from '../schema/domain/restore-point.ts';
import type { HeldLease, ResourceRequest } from '../schema/domain/scheduling.ts';
import type {
  BackupSessionInput,
  RestoredDisk,
  RestoreSessionInput,
  SessionErrorView,
  SessionPlan,
  StartedRestore,
  StartedSession,
  VmBackupResult,
} from '../schema/domain/sessions.ts';
import type { ConsistencyPolicy, Finding, SessionResult, SessionState, VmStep } from '../schema/domain/states.ts';

/** Queue `control.wait`. */
export type WaitActivities = {
  /**
   * Holds its attempt up to 60 s and heartbeats a `WaitHeartbeat`; then fails NO_CAPACITY, marked benign, with the
   * reason as its message. Granted before: the same leases again.
   */
  acquireResources(request: ResourceRequest): Promise<HeldLease[]>;
};

/** Queue `control`. */
export type ControlActivities = {
  /** Makes the session's row. JOB_NOT_FOUND; ALREADY_RUNNING while another session of the job lives in Temporal. */
  startSession(of: { input: BackupSessionInput; workflowId: string; startedAt: string }): Promise<StartedSession>;
  /**
   * Stores what the hosts answered, makes a row per VM. `silent`: hosts that did not answer; of their VMs the catalog's
   * inventory is used and its age becomes a warning. A VM on no inventory is planned with a warning; VM_NOT_FOUND when
   * that is so for every one. BAD_REQUEST: a retry of a session in which no VM failed.
   */
  planSession(of: {
    sessionId: SessionId;
    inventories: { hostId: HostId; vms: VmSummary[] }[];
    silent: HostId[];
  }): Promise<SessionPlan>;
  /** State, and what the UI-less see of it. */
  updateSession(of: {
    sessionId: SessionId;
    state: SessionState;
    result?: SessionResult;
    endedAt?: string;
    error?: SessionErrorView | null;
  }): Promise<void>;
  /** The VM's row: which attempt runs under which workflow. */
  startVm(of: {
    sessionId: SessionId;
    vm: VmRef;
    attempt: number;
    run: RunKey;
    workflowId: string;
    startedAt: string;
  }): Promise<void>;
  /** Rows of VM and disks, and the findings as events. `step` is where it ended. */
  recordVm(of: { sessionId: SessionId; step: VmStep; result: VmBackupResult }): Promise<void>;
  /** VMs the session never came to (stopped before): rows say NotProcessed. */
  recordUnprocessed(of: { sessionId: SessionId; vms: VmRef[] }): Promise<void>;
  /** The catalog's index entry of a sealed restore point. */
  recordRestorePoint(sealed: SealOutcome): Promise<void>;

  /** LEASE_LOST when one of them is no longer held. */
  confirmLeases(of: { workflowId: string; leaseIds: number[] }): Promise<void>;
  /** Some, or (null) all of the workflow and its waiting requests. Nothing held: success. */
  releaseResources(of: { workflowId: string; leaseIds: number[] | null }): Promise<void>;
  /** How long ago a worker last polled the queue; null: none is known. */
  probeQueue(of: { queue: string }): Promise<{ silentMs: number | null }>;

  /** RESTORE_POINT_NOT_FOUND, NOT_FOUND (disk, proxy), TARGET_NOT_ALLOWED (no proxy's configuration has the folder). */
  startRestore(of: { input: RestoreSessionInput; workflowId: string; startedAt: string }): Promise<StartedRestore>;
  recordRestore(of: { sessionId: SessionId; disks: RestoredDisk[]; findings: Finding[] }): Promise<void>;
};

/** Queues `host.<id>.ctl` and, for the undo verbs, `host.<id>.undo`. */
export type HostActivities = {
  listInventory(): Promise<VmSummary[]>;
  /** Facts and one verdict per disk about `base`. */
  inspectVm(of: { vm: VmRef; base: ReferencePoint | null }): Promise<{ facts: VmFacts; verdicts: BaseVerdict[] }>;
  createCheckpoint(spec: CheckpointSpec): Promise<Checkpoint>;
  openAccess(of: { run: RunKey; diskKey: DiskKey; reader: ProxyId }): Promise<DiskAccess>;
  closeAccess(of: { run: RunKey }): Promise<void>;
  releaseCheckpoint(of: { run: RunKey }): Promise<Released>;
  commitReferencePoint(of: { lineage: LineageId; keep: ReferencePoint }): Promise<void>;
  discardReferencePoint(of: { run: RunKey }): Promise<void>;
};

/** Queue `host.<id>.guest`; `thawGuest` also on `host.<id>.undo`. */
export type GuestActivities = {
  /**
   * Is the agent there, and the script before the freeze. Under `require` GUEST_REQUIRED when either fails; under
   * `prefer` a warning; under `none` nothing is asked of the guest unless there is a script.
   */
  prepareGuest(of: {
    vm: VmRef;
    run: RunKey;
    consistency: ConsistencyPolicy;
    script: GuestScript | null;
  }): Promise<{ warnings: Finding[] }>;
  /** Makes sure that the guest is not frozen by this run, then the script after the thaw. Never frozen: success. */
  thawGuest(of: { vm: VmRef; run: RunKey; script: GuestScript | null }): Promise<{ warnings: Finding[] }>;
  /** The script after the seal (log truncation); its failure is a warning. */
  completeGuest(of: { vm: VmRef; run: RunKey; script: GuestScript | null }): Promise<{ warnings: Finding[] }>;
};

/** Queue `repository.<id>.ctl`. */
export type RepositoryActivities = {
  openRestorePoint(spec: RestorePointSpec): Promise<OpenedRestorePoint>;
  declareDisks(of: {
    restorePointId: RestorePointId;
    run: RunKey;
    disks: { diskKey: DiskKey; sizeBytes: number; identity: string }[];
  }): Promise<void>;
  assignTransfer(request: TransferRequest): Promise<TransferAssignment>;
  sealRestorePoint(request: SealRequest): Promise<SealOutcome>;
  /** `restorePointId` null: it never became known. */
  abortRestorePoint(of: { restorePointId: RestorePointId | null; run: RunKey }): Promise<AbortOutcome>;
  /** RESTORE_POINT_NOT_FOUND. Where restore clients connect, and the disks as the manifest has them. */
  openRestore(of: { restorePointId: RestorePointId }): Promise<{
    endpoint: Endpoint;
    suspect: boolean;
    disks: { diskKey: DiskKey; sizeBytes: number }[];
  }>;
};

/** Queue `proxy.<id>.ctl`. */
export type ProxyControlActivities = {
  /** The rehearsal of step 4: connects, shakes hands, for this restore point. */
  connectMovers(of: { restorePointId: RestorePointId; run: RunKey; endpoint: Endpoint }): Promise<void>;
  /** `allowedFolders` come from the proxy's own configuration. */
  createTargets(request: Omit<TargetRequest, 'allowedFolders'>): Promise<TargetAccess[]>;
  finishTargets(of: { run: RunKey; folder: string }): Promise<FinishedTarget[]>;
  discardTargets(of: { run: RunKey; folder: string }): Promise<void>;
};

/** Queue `proxy.<id>`. Both heartbeat a `TransferHeartbeat`. */
export type ProxyActivities = {
  transferDisk(of: { access: DiskAccess; assignment: TransferAssignment }): Promise<TransferSummary>;
  restoreDisk(of: {
    run: RunKey;
    restorePointId: RestorePointId;
    diskKey: DiskKey;
    endpoint: Endpoint;
    target: TargetAccess;
  }): Promise<Omit<RestoredDisk, 'file'>>;
};

export type Activities = WaitActivities &
  ControlActivities &
  HostActivities &
  GuestActivities &
  RepositoryActivities &
  ProxyControlActivities &
  ProxyActivities;

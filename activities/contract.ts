/**
 * Signatures of all activities, by the task queue that serves them. Plain data in and out, one argument each, so that
 * fields can be added. Workflows see these types and nothing else of the activities.
 */
import type { FinishedTarget, FinishRequest, TargetRequest } from '../engines/restore/targets.ts';
import type {
  Checkpoint,
  CheckpointSpec,
  DiskAccess,
  TargetEndpoint,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
  VmSummary,
} from '../schema/domain/hypervisor.ts';
import type { GuestScript } from '../schema/domain/configuration.ts';
import type {
  DiskKey,
  HostId,
  LineageId,
  MachineId,
  ProxyId,
  RepositoryId,
  RestorePointId,
  RunKey,
  SessionId,
  SiteId,
} from '../schema/domain/ids.ts';
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
import type {
  ArtifactRuns,
  ChangedRestorePoint,
  GoneRestorePoint,
  ImportCounts,
  LineagePolicy,
  LineageRetention,
  MaintenanceOutcome,
  OpenRestorePointView,
  PackedRestorePoints,
  RemovedArtifacts,
  RepositoryMaintenanceInput,
  RepositorySpace,
  RestorePointChange,
  RestorePointPage,
  RestorePointSign,
  RunJudgement,
} from '../schema/domain/maintenance-sessions.ts';
import type {
  CheckReport,
  CheckRequest,
  ClockReset,
  CollectionReport,
  RepairReport,
  RepositoryStatistics,
} from '../schema/domain/maintenance.ts';
import type { ConsistencyPolicy, Finding, SessionResult, SessionState, VmStep } from '../schema/domain/states.ts';

/** With how full the repository was just after the seal (null or absent: nobody could say), and until when its lock holds, ISO 8601. */
export type SealAnswer = SealOutcome & { space?: RepositorySpace | null; lockedUntil?: string | null };

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
   * that is so for every one. BAD_REQUEST: a retry of a session in which no VM failed. The session's row is in state Working then.
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
  recordRestorePoint(sealed: SealAnswer): Promise<void>;

  /** LEASE_LOST when one of them is no longer held. */
  confirmLeases(of: { workflowId: string; leaseIds: number[] }): Promise<void>;
  /** Some, or (null) all of the workflow and its waiting requests. Nothing held: success. */
  releaseResources(of: { workflowId: string; leaseIds: number[] | null }): Promise<void>;
  /** How long ago a worker last polled the queue; null: none is known. */
  probeQueue(of: { queue: string }): Promise<{ silentMs: number | null }>;

  /** RESTORE_POINT_NOT_FOUND, NOT_FOUND (disk, proxy), TARGET_NOT_ALLOWED (no proxy's configuration has the folder). */
  startRestore(of: { input: RestoreSessionInput; workflowId: string; startedAt: string }): Promise<StartedRestore>;
  recordRestore(of: { sessionId: SessionId; disks: RestoredDisk[]; findings: Finding[] }): Promise<void>;

  /** Makes the session's row. NOT_FOUND (repository); ALREADY_RUNNING while another maintenance of it lives. */
  startMaintenance(of: {
    input: RepositoryMaintenanceInput & { sessionId: SessionId };
    workflowId: string;
    startedAt: string;
  }): Promise<void>;
  /** How many others wait for the repository, with a request that goes before maintenance. */
  othersWait(of: { repositoryId: RepositoryId; workflowId: string }): Promise<{ waiting: number }>;
  /** The lineages after that one, as many as go into one answer; `next` null: there are no more. */
  planRetention(of: {
    repositoryId: RepositoryId;
    after: LineageId | null;
  }): Promise<{ lineages: LineagePolicy[]; next: LineageId | null }>;
  /**
   * What a step came to: for people, and in the catalog's rows. `part` from 0, of a step that tells it in several. After
   * the statistics: how near to its thresholds the repository is.
   */
  recordMaintenance(of: {
    sessionId: SessionId;
    repositoryId: RepositoryId;
    part: number;
    outcome: MaintenanceOutcome;
  }): Promise<{ alarms: Finding[] }>;
  /** As events; `about` (at most 40 characters) makes a repeated record the same ones. */
  recordFindings(of: { sessionId: SessionId; about: string; findings: Finding[] }): Promise<void>;
  /** The same of a retention that follows a session. */
  recordRetention(of: { sessionId: SessionId; lineages: LineageRetention[] }): Promise<void>;
  /**
   * Makes the rows of the page's span the page's; `missing` have to be imported. `gone`: the first of those removed; absent: there
   * is none, or a version answered that did not tell.
   */
  reconcileRestorePoints(of: {
    repositoryId: RepositoryId;
    page: RestorePointPage;
  }): Promise<
    { missing: RestorePointId[]; gone?: GoneRestorePoint[] } & Pick<ImportCounts, 'trashed' | 'changed' | 'removed'>
  >;
  importRestorePoints(of: PackedRestorePoints): Promise<Pick<ImportCounts, 'sessionsAdded'>>;
  recordRestorePointChange(changed: ChangedRestorePoint): Promise<void>;
  /** Marks and flags of restore points that the catalog has; others are passed over. */
  recordSuspects(of: { signs: RestorePointSign[] }): Promise<void>;

  /** What the janitor goes round. */
  listSiteParts(): Promise<{ site: SiteId | null; hosts: HostId[]; repositories: RepositoryId[] }>;
  /** `witness`: an open workflow that Temporal's list has to show when it is asked about runs the catalog does not know. */
  judgeRuns(of: { runs: RunKey[]; witness: string | null }): Promise<RunJudgement>;
  /** Into the stories of the sessions whose runs they were. */
  recordJanitor(of: { removed: { run: RunKey; message: string }[] }): Promise<void>;
};

/** Queues `host.<id>.ctl` and, for the undo verbs, `host.<id>.undo`. */
export type HostActivities = {
  listInventory(): Promise<VmSummary[]>;
  inspectVm(of: { vm: VmRef }): Promise<VmFacts>;
  createCheckpoint(spec: CheckpointSpec): Promise<Checkpoint>;
  openAccess(of: { run: RunKey; diskKey: DiskKey; reader: ProxyId }): Promise<DiskAccess>;
  /** Shuts all handles to its disks first. */
  releaseCheckpoint(of: { run: RunKey }): Promise<Released>;
  commitReferencePoint(of: { lineage: LineageId; keep: ReferencePoint }): Promise<void>;
  discardReferencePoint(of: { run: RunKey }): Promise<void>;
  /** Of what was made outside on this host, by this site. */
  listArtifactRuns(): Promise<ArtifactRuns>;
  /** What there is of these runs, of this site and kind. One that cannot be removed does not keep the others. */
  removeArtifacts(of: ArtifactRuns): Promise<RemovedArtifacts>;
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
  sealRestorePoint(request: SealRequest): Promise<SealAnswer>;
  /** `restorePointId` null: it never became known. */
  abortRestorePoint(of: { restorePointId: RestorePointId | null; run: RunKey }): Promise<AbortOutcome>;
  /**
   * RESTORE_POINT_NOT_FOUND. Where restore clients connect, and the disks as the manifest has them. `machineId`: of the proxy
   * that will restore it.
   */
  openRestore(of: { restorePointId: RestorePointId; run?: RunKey; machineId?: MachineId }): Promise<{
    endpoint: TargetEndpoint;
    /** What lets `machineId` read it, in this run; hex. `grantEnd`: until when, in seconds since the epoch. */
    grant?: string;
    grantEnd?: number;
    suspect: boolean;
    disks: { diskKey: DiskKey; sizeBytes: number }[];
  }>;
  /**
   * Decides by repository time, and moves what goes to the trash, unless `dryRun`; that one tells why each stays, too. Of the
   * first so many lineages, the last of them perhaps in part (its `next`): the rest is to be asked for again.
   */
  applyRetention(of: { lineages: LineagePolicy[]; dryRun: boolean }): Promise<LineageRetention[]>;
  /** Those with ids above `after`, in the trash or not, as many as go into one answer. */
  listRestorePoints(of: { after: RestorePointId | null }): Promise<RestorePointPage>;
  /** The first so many of them; those that are no longer there are left out, and counted. */
  describeRestorePoints(of: { restorePointIds: RestorePointId[] }): Promise<PackedRestorePoints>;
  /** RESTORE_POINT_NOT_FOUND, RESTORE_POINT_HELD, LAST_RESTORE_POINT. */
  changeRestorePoint(of: { restorePointId: RestorePointId; change: RestorePointChange }): Promise<ChangedRestorePoint>;
  /** `today`: see `RepositoryMaintenanceInput`. CLOCK_IN_DOUBT, BAD_REQUEST. */
  resetClock(of: { today: string }): Promise<ClockReset>;
  /** Of that lineage, which an audit found suspect; as many as go into one answer. */
  listSuspects(of: { lineage: LineageId }): Promise<RestorePointSign[]>;
  listOpenRestorePoints(): Promise<OpenRestorePointView[]>;
  /** Which of these a sealed restore point names as its own or as its reference point's, or an open one has. */
  namedRuns(of: { runs: RunKey[] }): Promise<RunKey[]>;
};

/** Queue `repository.<id>`. All heartbeat a `MaintenanceProgress`, and end when they are cancelled. */
export type RepositoryWorkActivities = {
  collectGarbage: () => Promise<CollectionReport>;
  /** `damageCount`: how many there were; the report may have fewer. */
  checkRepository: (request: CheckRequest) => Promise<{ report: CheckReport; damageCount: number }>;
  repairRepository: (of: { dryRun: boolean }) => Promise<RepairReport>;
  measureRepository: () => Promise<{ statistics: RepositoryStatistics; space: RepositorySpace | null }>;
};

/** Queue `proxy.<id>.ctl`. */
export type ProxyControlActivities = {
  /** The rehearsal of step 4: connects, shakes hands, for this restore point. */
  connectMovers(of: { restorePointId: RestorePointId; run: RunKey; endpoint: TargetEndpoint }): Promise<void>;
  /** `allowedFolders` come from the proxy's own configuration. */
  createTargets(request: Omit<TargetRequest, 'allowedFolders'>): Promise<TargetAccess[]>;
  /** All of `made`; none twice when that is absent. */
  finishTargets(of: FinishRequest): Promise<FinishedTarget[]>;
  discardTargets(of: { run: RunKey; folder: string }): Promise<void>;
};

/** Queue `proxy.<id>`. Both heartbeat a `TransferHeartbeat`. */
export type ProxyActivities = {
  transferDisk(of: { access: DiskAccess; assignment: TransferAssignment }): Promise<TransferSummary>;
  restoreDisk(of: {
    run: RunKey;
    restorePointId: RestorePointId;
    diskKey: DiskKey;
    endpoint: TargetEndpoint;
    grant?: string;
    grantEnd?: number;
    target: TargetAccess;
  }): Promise<Omit<RestoredDisk, 'file' | 'proxyId'>>;
};

export type Activities = WaitActivities &
  ControlActivities &
  HostActivities &
  GuestActivities &
  RepositoryActivities &
  RepositoryWorkActivities &
  ProxyControlActivities &
  ProxyActivities;

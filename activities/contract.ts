/** Signatures of the activities a backup says, by the queue that serves them. Plain data in and out. */
import type {
  Checkpoint,
  CheckpointSpec,
  DiskAccess,
  Endpoint,
  ReferencePoint,
  Released,
  VmFacts,
  VmRef,
} from '../schema/domain/hypervisor.ts';
import type { BaseVerdict } from '../schema/domain/hypervisor.ts';
import type { DiskKey, LineageId, ProxyId, RestorePointId, RunKey } from '../schema/domain/ids.ts';
import type {
  AbortOutcome,
  DiskPlan,
  OpenedRestorePoint,
  RestorePointSpec,
  SealOutcome,
  SealRequest,
  TransferAssignment,
  TransferRequest,
  TransferSummary,
} from '../schema/domain/restore-point.ts';
import type { HeldLease, ResourceRequest } from '../schema/domain/scheduling.ts';

/** Queue `control.wait`: fails NO_CAPACITY, marked benign, with the reason while nothing is granted. */
export type WaitActivities = { acquireResources(request: ResourceRequest): Promise<HeldLease[]> };

/** Queue `control`. */
export type ControlActivities = {
  /** LEASE_LOST when one of them is no longer held. */
  confirmLeases(of: { workflowId: string; run: RunKey }): Promise<void>;
  releaseResources(of: { workflowId: string }): Promise<void>;
  recordRestorePoint(sealed: SealOutcome): Promise<void>;
};

/** Queues `host.<id>.ctl` and, for the undo verbs, `host.<id>.undo`. */
export type HostActivities = {
  /** Facts and one verdict per disk about `base`. */
  inspectVm(of: { vm: VmRef; base: ReferencePoint | null }): Promise<{ facts: VmFacts; verdicts: BaseVerdict[] }>;
  createCheckpoint(spec: CheckpointSpec): Promise<Checkpoint>;
  openAccess(of: { run: RunKey; diskKey: DiskKey; reader: ProxyId }): Promise<DiskAccess>;
  closeAccess(of: { run: RunKey }): Promise<void>;
  releaseCheckpoint(of: { run: RunKey }): Promise<Released>;
  commitReferencePoint(of: { lineage: LineageId; keep: ReferencePoint }): Promise<void>;
  discardReferencePoint(of: { run: RunKey }): Promise<void>;
};

/** Queue `repository.<id>.ctl`. */
export type RepositoryActivities = {
  openRestorePoint(spec: RestorePointSpec): Promise<OpenedRestorePoint>;
  declareDisks(of: { restorePointId: RestorePointId; run: RunKey; disks: DiskPlan[] }): Promise<void>;
  assignTransfer(request: TransferRequest): Promise<TransferAssignment>;
  sealRestorePoint(request: SealRequest): Promise<SealOutcome>;
  abortRestorePoint(of: { restorePointId: RestorePointId; run: RunKey }): Promise<AbortOutcome>;
};

/** Queue `proxy.<id>.ctl`. */
export type ProxyControlActivities = {
  connectMovers(of: { restorePointId: RestorePointId; run: RunKey; endpoint: Endpoint }): Promise<void>;
};

/** Queue `proxy.<id>`. */
export type ProxyActivities = {
  transferDisk(of: { access: DiskAccess; assignment: TransferAssignment }): Promise<TransferSummary>;
};

/** A restore point as the repository, the mover and the workflows see it. Block lists stay in the repository. */
import type { BrakeConfig } from './configuration.ts';
import type { Extent } from './extents.ts';
import type { Endpoint, Reason, ReferencePoint, TargetEndpoint, VmRef } from './hypervisor.ts';
import type { DiskKey, JobId, LineageId, MachineId, RepositoryId, RestorePointId, RunKey, SessionId } from './ids.ts';
import type { Compression, ConsistencyPolicy, ConsistencyReached, Finding, ReadMode } from './states.ts';
import type { StageTimes } from './stages.ts';

/** Bytes of a disk, each block in exactly one class (invariant 4). `size` is their sum. */
export type Conservation = {
  sizeBytes: number;
  unallocatedBytes: number;
  zeroBytes: number;
  filteredBytes: number;
  unchangedBytes: number;
  deduplicatedBytes: number;
  storedBytes: number;
};

/** What `openRestorePoint` is told; written to the head of the open restore point. */
export type RestorePointSpec = {
  run: RunKey;
  lineage: LineageId;
  vm: VmRef;
  vmName: string;
  jobId: JobId;
  sessionId: SessionId;
  /** Scheduled time beside the real one; ISO 8601, UTC. */
  nominalTime: string;
  blockSize: number;
  compression: Compression;
};

/** A sealed restore point that a session may build on. */
export type BaseRestorePoint = {
  restorePointId: RestorePointId;
  lineage: LineageId;
  sealedAt: string;
  referencePoint: ReferencePoint | null;
  disks: { diskKey: DiskKey; identity: string; sizeBytes: number; blockSize: number }[];
};

export type OpenedRestorePoint = {
  restorePointId: RestorePointId;
  /** Where movers connect. */
  endpoint: TargetEndpoint;
  /** Last sealed restore point of the same lineage: its reference point is the only base for an increment (invariant 1). */
  base: BaseRestorePoint | null;
  /** Newest sealed restore point of the same VM, of any lineage: what a comparison compares with. */
  compareWith: BaseRestorePoint | null;
  freeBytes: number;
};

/** A disk's place in the open restore point; decided by the workflow from the checkpoint's verdicts. */
export type DiskPlan = {
  diskKey: DiskKey;
  sizeBytes: number;
  identity: string;
  mode: ReadMode;
  reason: Reason;
  /** Restore point whose map unchanged blocks come from; null for a full. */
  baseRestorePointId: RestorePointId | null;
};

/** What `assignTransfer` is asked; the number grows with each assignment of this disk. */
export type TransferRequest = {
  restorePointId: RestorePointId;
  run: RunKey;
  disk: DiskPlan;
  /** Identity of the checkpoint the ledger is bound to (invariant 8). */
  checkpoint: string;
  assignment: number;
  /** Whose machine the proxy is; absent: not known, and then only a proxy on the repository's own machine may send. */
  machineId?: MachineId;
};

/** What a proxy needs to send one disk. `fence` is durable at the repository before this is returned (invariant 5). */
export type TransferAssignment = {
  restorePointId: RestorePointId;
  run: RunKey;
  diskKey: DiskKey;
  fence: number;
  sizeBytes: number;
  blockSize: number;
  compression: Compression;
  mode: ReadMode;
  /** Read besides what CBT reports: growth, the old end's block, suspect blocks. Sorted, whole blocks. */
  alsoRead: Extent[];
  /** Of a comparison: below it windows may be like those of the base. Absent: 0. */
  comparableBytes?: number;
  endpoint: TargetEndpoint;
  /** What the repository lets `machineId` do, for HELLO; hex. */
  grant?: string;
};

/** The source's own account of one disk over all its windows, bytes; from the target's ledger of what sources declared. */
export type SourceAccount = {
  sizeBytes: number;
  notReadBytes: number;
  unallocatedBytes: number;
  zeroBytes: number;
  dataBytes: number;
};

/** What `transferDisk` returns; counts of this attempt. Bytes. */
export type TransferSummary = {
  diskKey: DiskKey;
  fence: number;
  /** Windows acknowledged in all, and how many of them this attempt sent. */
  windowCount: number;
  windowsSent: number;
  readBytes: number;
  sentBytes: number;
  reconnects: number;
  durationMs: number;
  /** Where the time of its lanes went; absent in histories of before there were such figures. */
  stages?: StageTimes;
};

/** What `sealRestorePoint` is told; all else the repository knows itself. */
export type SealRequest = {
  restorePointId: RestorePointId;
  run: RunKey;
  takenAt: string;
  referencePoint: ReferencePoint | null;
  consistency: { asked: ConsistencyPolicy; reached: ConsistencyReached; frozenMs: number | null; why?: Reason };
  warnings: Finding[];
  /** Disks of the VM that are not in this restore point. */
  leftOut: { diskKey: DiskKey; why: Reason }[];
  /** Summed over attempts, per disk. */
  transfers: { diskKey: DiskKey; readBytes: number; sentBytes: number }[];
};

/**
 * Of blocks that change tracking called unchanged: how many were looked at, and how many had changed all the same.
 * `firstMismatch`: index of the first of them, if there is one.
 */
export type AuditResult = { sampled: number; mismatched: number; firstMismatch?: number | null | undefined };

export type ManifestDisk = {
  diskKey: DiskKey;
  identity: string;
  sizeBytes: number;
  blockSize: number;
  /** Digest of the top map page, hex; height as in FORMAT.md. */
  root: string;
  height: number;
  filterDigest: string | null;
  baseRoot: string | null;
  mode: ReadMode;
  reason: Reason;
  audit: AuditResult;
  conservation: Conservation;
  readBytes: number;
  sentBytes: number;
};

/** The one object that makes a restore point; canonical JSON of this is the manifest file. */
export type Manifest = {
  format: number;
  repository: RepositoryId;
  restorePointId: RestorePointId;
  run: RunKey;
  lineage: LineageId;
  vm: { vmId: string; hostId: string; name: string };
  jobId: JobId;
  sessionId: SessionId;
  nominalTime: string;
  takenAt: string;
  sealedAt: string;
  writer: string;
  baseRestorePointId: RestorePointId | null;
  consistency: SealRequest['consistency'];
  warnings: Finding[];
  leftOut: SealRequest['leftOut'];
  referencePoint: ReferencePoint | null;
  disks: ManifestDisk[];
  configurationRoot: string | null;
  ledgerDigest: string;
  suspect: boolean;
};

export type SealOutcome = { restorePointId: RestorePointId; manifestDigest: string; manifest: Manifest };
export type AbortOutcome = { outcome: 'aborted' } | { outcome: 'sealed'; sealed: SealOutcome };

/** How a restore lane, on any thread, opens a prepared restore target for writing. Plain data. */
export type TargetAccess = {
  run: RunKey;
  diskKey: DiskKey;
  sizeBytes: number;
  /** Where the restore keeps how far it durably came; removed with the state of the run. */
  cursorFile: string;
  data: { via: 'file'; path: string } | { via: 'nbd'; at: Endpoint; export: string };
  /** Of the storage that it lies on; absent: none. */
  brakes?: BrakeConfig[];
};

/**
 * What the workflows are started with and what they return. Histories outlive versions of the software: each input
 * carries a version, fields are added, never given another meaning.
 */
import type { JobConfig } from './configuration.ts';
import type { ErrorCode } from './errors.ts';
import type { Reason, VmRef } from './hypervisor.ts';
import type { DiskKey, JobId, ProxyId, RepositoryId, RestorePointId, RunKey, SessionId, SiteId, VmId } from './ids.ts';
import type { AuditResult, Conservation } from './restore-point.ts';
import type { StageTimes } from './stages.ts';
import type { ConsistencyReached, Finding, ReadMode, SessionResult, VmStep } from './states.ts';

export type BackupSessionInput = {
  version: 1;
  sessionId: SessionId;
  jobId: JobId;
  startedBy: 'manual' | 'schedule';
  /** Scheduled time, ISO 8601, UTC; null: the time the workflow started. */
  nominalTime: string | null;
  /** Takes only the VMs that failed in that session; null: all of the job. */
  retryOf: SessionId | null;
};

/** What a child has to know of its job: the VM list stays with the session. */
export type JobRules = Omit<JobConfig, 'vms'>;

export type StartedSession = { site: SiteId; job: JobConfig };

/** `position` counts from 0 in the order of the job; `diskCount` is what the inventory says, null when it says nothing. */
export type PlannedVm = {
  vm: VmRef;
  name: string;
  excludeDisks: DiskKey[];
  position: number;
  diskCount: number | null;
  /** What its restore point is expected to take in the repository; absent or null: nothing is known. Bytes. */
  expectedBytes?: number | null;
};
export type SessionPlan = { vms: PlannedVm[]; warnings: Finding[] };

export type VmBackupInput = {
  version: 1;
  sessionId: SessionId;
  site: SiteId;
  job: JobRules;
  vm: PlannedVm;
  /** ISO 8601, UTC. */
  nominalTime: string;
  manual: boolean;
  /** Counts from 1: the round of the session in which this VM is tried. */
  attempt: number;
};

export type SessionErrorView = { code: ErrorCode; message: string; hint: string };

export type VmDiskResult = {
  diskKey: DiskKey;
  mode: ReadMode;
  reason: Reason;
  proxyId: ProxyId | null;
  sizeBytes: number;
  readBytes: number;
  sentBytes: number;
  /** Where the time of its transfers went, over all tries; absent before the first has ended. */
  stages?: StageTimes;
  /** Null until sealed. */
  conservation: Conservation | null;
  /** Null until sealed. Nothing sampled: the disk was not read by changed block tracking. */
  audit: AuditResult | null;
};

export type VmBackupResult = {
  vmId: VmId;
  run: RunKey;
  result: Exclude<SessionResult, 'None'>;
  restorePointId: RestorePointId | null;
  consistency: ConsistencyReached | null;
  disks: VmDiskResult[];
  /** Everything a person should know, in the order it happened; warnings make the result Warning. */
  findings: Finding[];
  error: SessionErrorView | null;
  startedAt: string;
  endedAt: string;
};

/** Answer of the query `vmProgress`: what a person sees of a VM in work. Live figures are in the heartbeats. */
export type VmProgress = {
  run: RunKey;
  step: VmStep;
  /** What it waits for, in words; null when it does not wait. */
  waitsFor: string | null;
  restorePointId: RestorePointId | null;
  disks: (VmDiskResult & { state: 'waiting' | 'transferring' | 'done' | 'failed' })[];
  findings: Finding[];
};

/** Heartbeat detail of `transferDisk` and `restoreDisk`, under 1 KB. Bytes. */
export type TransferHeartbeat = {
  disk: DiskKey;
  bytesDone: number;
  bytesTotal: number;
  readBytes: number;
  sentBytes: number;
  readRateBytesPerSecond: number;
  windowsAcked: number;
  windowCount: number;
  /** 'source', 'target', or a sentence while the target cannot be reached; null while it flows. */
  waitsFor: string | null;
  /** Of an increment: blocks that change tracking calls unchanged, of which so many were looked at. */
  audit?: { audited: number; wanted: number };
  /** Where its time went so far; absent in those of before there were such figures of restores. */
  stages?: StageTimes;
};

/** Heartbeat detail of `acquireResources`. */
export type WaitHeartbeat = { position: number | null; reason: Reason };

export type RestoreSessionInput = {
  version: 1;
  sessionId: SessionId;
  restorePointId: RestorePointId;
  /** Null: all disks of the restore point. */
  disks: DiskKey[] | null;
  format: 'raw' | 'qcow2';
  /** Absolute folder on the proxy; files are named `<name>-<disk>.<format>`. */
  folder: string;
  /** Null: the VM's name. */
  name: string | null;
  /** Null: any proxy whose `restoreFolders` hold the folder. */
  proxyId: ProxyId | null;
};

export type StartedRestore = {
  vmId: VmId;
  vmName: string;
  repositoryId: RepositoryId;
  /** Candidates: their configuration allows the folder. Never empty. */
  proxies: ProxyId[];
  disks: { diskKey: DiskKey; sizeBytes: number; fileName: string }[];
};

export type RestoredDisk = {
  diskKey: DiskKey;
  file: string;
  /** On whose machine the file is; absent in histories of before it was told. */
  proxyId?: ProxyId;
  sizeBytes: number;
  receivedBytes: number;
  writtenBytes: number;
  /** Where the time of its lanes went; absent in histories of before there were such figures. */
  stages?: StageTimes;
};
export type RestoreSessionResult = {
  result: Exclude<SessionResult, 'None'>;
  disks: RestoredDisk[];
  findings: Finding[];
  error: SessionErrorView | null;
};

/** Answer of the query `restoreProgress`. */
export type RestoreProgressView = {
  step: 'waiting' | 'preparing' | 'transferring' | 'finishing' | 'undoing' | 'done';
  waitsFor: string | null;
  disks: {
    diskKey: DiskKey;
    sizeBytes: number;
    state: 'waiting' | 'transferring' | 'done' | 'failed';
    /** Of the tries that have ended. */
    stages?: StageTimes;
  }[];
};

// ---- names on Temporal -------------------------------------------------------------------------

export const backupSessionWorkflowId = (job: JobId, session: SessionId): string => `backup-session/${job}/${session}`;
export const restoreSessionWorkflowId = (session: SessionId): string => `restore-session/${session}`;
/** Ends in the round: a new one is a new workflow, with a run key of its own. */
export const vmBackupWorkflowId = (parent: string, vm: VmId, attempt: number): string =>
  `${parent}/vm/${vm}/try-${attempt}`;

export const workflowTypes = {
  backupSession: 'backupSession',
  vmBackup: 'vmBackup',
  restoreSession: 'restoreSession',
  repositoryMaintenance: 'repositoryMaintenance',
  restorePointChange: 'restorePointChange',
  janitor: 'janitor',
} as const;
export const queryNames = {
  vmProgress: 'vmProgress',
  restoreProgress: 'restoreProgress',
  maintenanceProgress: 'maintenanceProgress',
} as const;

/** To a `backupSession`, without argument: graceful stop, VMs in work finish. An immediate stop is a cancellation. */
export const signalNames = { stop: 'stop' } as const;

/** Typed search attributes, all Keyword. */
export const searchAttributeNames = {
  job: 'TidemarkJob',
  vm: 'TidemarkVm',
  state: 'TidemarkState',
  result: 'TidemarkResult',
  repository: 'TidemarkRepository',
  runKey: 'TidemarkRunKey',
} as const;

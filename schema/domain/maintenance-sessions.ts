/**
 * Maintenance of a repository as a session: what it is started with, what its steps come to, what activities of control
 * and repository tell one another. Bytes; times ISO 8601, UTC.
 */
import type { Reason } from './hypervisor.ts';
import type { JobId, LineageId, RepositoryId, RestorePointId, RunKey, SessionId, VmId } from './ids.ts';
import type {
  CheckReport,
  CheckRequest,
  ClockReset,
  CollectionReport,
  RepairReport,
  RepositoryStatistics,
  RestorePointFlags,
  RestorePointMark,
} from './maintenance.ts';
import type { SealOutcome } from './restore-point.ts';
import type { RestorePointState, RetentionDecision, RetentionPolicy } from './retention.ts';
import type { SessionErrorView } from './sessions.ts';
import type { Finding, SessionResult } from './states.ts';

/** A sealed restore point with what has been said of it since: the manifest never changes. */
export type SealedRestorePoint = SealOutcome & { mark: RestorePointMark | null; flags: RestorePointFlags };
/** One in the repository's trash. `trashedUntil`: until then at least it can be brought back; null: nobody can say. */
export type TrashedSign = { restorePointId: RestorePointId; trashedUntil: string | null };
/** `asOf`: when that was so, by the clock of the repository's host. */
export type RemovedSign = TrashedSign & { asOf: string };
/** The same with all that is known of it. */
export type TrashedRestorePoint = SealedRestorePoint & Pick<TrashedSign, 'trashedUntil'>;

/**
 * `import`: the catalog becomes what the repository holds. `retention`: restore points that no rule keeps go to the trash.
 * `collection`: what nothing needs any more goes. `check`: what is there is looked at. `repair`: what is sound of damaged
 * packs is saved. `statistics`: how much of everything there is. `reset-clock`: repository time goes back to the present.
 * `open-points`: what was begun and is not sealed is listed, and one of it aborted when that is said.
 */
export const maintenanceSteps = [
  'import',
  'retention',
  'collection',
  'check',
  'repair',
  'statistics',
  'reset-clock',
  'open-points',
] as const;
export type MaintenanceStep = (typeof maintenanceSteps)[number];
/** What a Schedule does. */
export const nightlySteps: readonly MaintenanceStep[] = ['import', 'retention', 'collection', 'check', 'statistics'];

export type RepositoryMaintenanceInput = {
  version: 1;
  /** Null: of a Schedule, which has none; then it is made from the start of the workflow. */
  sessionId: SessionId | null;
  repositoryId: RepositoryId;
  startedBy: 'manual' | 'schedule';
  /** In this order. */
  steps: MaintenanceStep[];
  /** For the step `check`. */
  check: CheckRequest | null;
  /** For the step `reset-clock`: "2026-11-30", which the clocks have to show. */
  today?: string;
  /** For the step `open-points`: the restore point to be aborted, or the beginning of its id. */
  abort?: string;
  /** Retention and repair say what they would do, and do nothing. */
  dryRun: boolean;
  /** Of a run that goes on where the one before it left off, because its history had become long; absent: it begins. */
  goingOn?: MaintenanceMemory;
};

/** `startedAt`: of the first run. `cursor`: where the step that is working is; null: at its beginning. */
export type MaintenanceMemory = {
  startedAt: string;
  steps: MaintenanceProgressView['steps'];
  findings: Finding[];
  error: SessionErrorView | null;
  cursor: MaintenanceCursor | null;
};
/** After which restore point or lineage a step goes on, and what it came to so far. `part`: of what it records. */
export type MaintenanceCursor =
  | { step: 'import'; after: RestorePointId | null; counts: ImportCounts }
  | {
      step: 'retention';
      after: LineageId | null;
      /** Of the plan that ends with `after`, what is not done; absent: nothing. */
      left?: LineagePolicy[];
      part: number;
      told: { stays: number; goes: number; refused: number };
    };

// ---- retention -----------------------------------------------------------------------------------

/** What control says of a lineage: how long its restore points stay. */
export type LineagePolicy = {
  lineage: LineageId;
  jobId: JobId;
  vmId: VmId;
  vmName: string;
  policy: RetentionPolicy | null;
  vmGoneSince: string | null;
  /** Absent: it begins. */
  after?: RetentionCursor;
};
/**
 * Where the next answer about a lineage goes on: behind this restore point, by age. `again`: an answer before may have been
 * lost, so what lies in the trash is told as well.
 */
export type RetentionCursor = { takenAt: string; restorePointId: RestorePointId; again: boolean };

/** `refused`: no rule keeps it, but the repository does; `refusal` says why. */
export type PointOutcome = 'stays' | 'would-go' | 'removed' | 'refused';
export type PointDecision = RetentionDecision & {
  takenAt: string;
  outcome: PointOutcome;
  trashedUntil: string | null;
  /** When it was removed, by the clock of the repository's host; null: it was not. */
  asOf: string | null;
  refusal: Reason | null;
};

/**
 * Of a dry run all decisions, else those of what does not just stay; newest first. `stays`: how many do. `trashed`: of a
 * repeated try, what lies in the trash: the answer that told of it may have been lost. `next`: it is a part, of the oldest
 * restore points that were not decided about before; there are more. `doubt`: why all of this lineage stay, though it has
 * rules; in the first part only.
 */
export type LineageRetention = Omit<LineagePolicy, 'policy' | 'vmGoneSince' | 'after'> & {
  stays: number;
  decisions: PointDecision[];
  trashed?: RemovedSign[];
  next?: RetentionCursor;
  doubt?: Reason;
};

export const noFlags: RestorePointFlags = { keep: false, hold: null, lockedUntil: null };

/** Damage counts before what the seal knew. */
export const stateOf = ({ mark, manifest }: SealedRestorePoint): RestorePointState =>
  mark?.state ?? (manifest.suspect ? 'suspect' : 'good');

// ---- catalog from repository ---------------------------------------------------------------------

/** A sealed restore point in short: enough to see whether the catalog has it as it is. */
export type RestorePointSign = {
  restorePointId: RestorePointId;
  manifestDigest: string;
  state: RestorePointState;
  /** Why it is not good; null: it is, or nobody said. */
  why: string | null;
  /** Null: none, as of most. */
  flags: RestorePointFlags | null;
};

/** All restore points, sealed and in the trash, with ids above `after`, up to and with `upTo` (null: to the last), by id. */
export type RestorePointPage = {
  after: RestorePointId | null;
  upTo: RestorePointId | null;
  /** When it was looked at, by the clock that restore points are sealed by. */
  asOf: string;
  signs: RestorePointSign[];
  trashed: TrashedSign[];
};

/** `SealedRestorePoint`s and `TrashedRestorePoint`s, as many as fit, as gzipped JSON in base64: a history holds each page twice. */
export type PackedRestorePoints = { packed: string; count: number; asOf: string };

/** It was in the catalog, and is neither in the repository nor in its trash. */
export type GoneRestorePoint = { restorePointId: RestorePointId; vmName: string };

export type ImportCounts = {
  restorePoints: number;
  /** In the trash of the repository, beside those. */
  trashed: number;
  added: number;
  /** Whose flags or mark were others in the catalog. */
  changed: number;
  /** In the catalog, and no longer in the repository. */
  removed: number;
  sessionsAdded: number;
};

// ---- steps and what they come to -----------------------------------------------------------------

/** Of the file system a repository lies on. */
export type RepositorySpace = { freeBytes: number; totalBytes: number; at: string };

/** A report may be cut to what a history takes: `damageCount` is how many there were. */
export type MaintenanceOutcome =
  | { step: 'import'; counts: ImportCounts }
  | { step: 'retention'; dryRun: boolean; lineages: LineageRetention[] }
  | { step: 'collection'; report: CollectionReport }
  | { step: 'check'; report: CheckReport; damageCount: number }
  | { step: 'repair'; dryRun: boolean; report: RepairReport }
  | { step: 'reset-clock'; reset: ClockReset }
  /** `aborted`: one that is therefore not among the points any more. */
  | { step: 'open-points'; points: JudgedOpenPoint[]; aborted: RestorePointId | null }
  | { step: 'statistics'; statistics: RepositoryStatistics; space: RepositorySpace | null };

export type MaintenanceResult = {
  result: Exclude<SessionResult, 'None'>;
  findings: Finding[];
  error: SessionErrorView | null;
};

export type StepState = 'waiting' | 'working' | 'done' | 'failed' | 'left-out';
/** Answer of the query `maintenanceProgress`. */
export type MaintenanceProgressView = {
  waitsFor: string | null;
  steps: { step: MaintenanceStep; state: StepState; summary: string }[];
};

// ---- one restore point, by a person --------------------------------------------------------------

export type RestorePointChange =
  | { kind: 'flags'; keep?: boolean; hold?: string | null }
  /** `last`: even the newest good one of its lineage. */
  | { kind: 'remove'; last: boolean }
  | { kind: 'undelete' };

export type RestorePointChangeInput = {
  version: 1;
  repositoryId: RepositoryId;
  restorePointId: RestorePointId;
  change: RestorePointChange;
};

/** As it is afterwards: in the trash until then, or there, with its flags. `asOf`: by the repository's clock. */
export type ChangedRestorePoint = { asOf: string } & (
  ({ removed: true } & TrashedSign) | ({ removed: false } & SealedRestorePoint)
);

// ---- janitor -------------------------------------------------------------------------------------

export type JanitorInput = { version: 1 };

/** An open restore point as the repository knows it. */
export type OpenRestorePointView = {
  restorePointId: RestorePointId;
  run: RunKey;
  vmName: string;
  lastWriteAt: string;
};
/** `writer`: whether a workflow with its run key is open. */
export type JudgedOpenPoint = OpenRestorePointView & { writer: 'open' | 'none' | 'unknown' };

/** Whose artifacts a host has: short-lived ones, and reference points. */
export type ArtifactRuns = { temporary: RunKey[]; referencePoints: RunKey[] };
/** `what`: for people. */
export type RemovedArtifacts = {
  removed: { run: RunKey; what: string }[];
  failed: { run: RunKey; what: string; why: string }[];
};

/** Of runs asked about: whose workflow is over, and of whom nobody can say. All others are alive. */
export type RunJudgement = { closed: RunKey[]; unknown: RunKey[] };

export type JanitorResult = {
  /** What was taken away, each a sentence. */
  removed: string[];
  /** What could not be, or must not be yet, and why. */
  left: string[];
};

// ---- names on Temporal ---------------------------------------------------------------------------

export const maintenanceWorkflowId = (repository: RepositoryId, session: SessionId): string =>
  `repository-maintenance/${repository}/${session}`;
/** Temporal adds the time to the ids of the workflows it starts. */
export const maintenanceScheduleId = (repository: RepositoryId): string => `repository-maintenance/${repository}`;
export const JANITOR_ID = 'janitor';

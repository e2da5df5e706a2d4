/** A repository as its owning process sees it: one folder, locked; verbs by restore point, idempotent by run key. */
import type { DiskKey, RepositoryId, RestorePointId, RunKey } from '../../schema/domain/ids.ts';
import type {
  AbortOutcome,
  OpenedRestorePoint,
  RestorePointSpec,
  SealOutcome,
  SealRequest,
  TransferAssignment,
  TransferRequest,
} from '../../schema/domain/restore-point.ts';
import type {
  CheckReport,
  CheckRequest,
  ClockReset,
  CollectionReport,
  PointStatistics,
  RemovalOutcome,
  RepairReport,
  RepositoryStatistics,
  RestorePointFlags,
  RestorePointMark,
} from '../../schema/domain/maintenance.ts';
import type { SealedRestorePoint, TrashedRestorePoint } from '../../schema/domain/maintenance-sessions.ts';
import type { RestoreSource, Seams, TransferRegistrar } from '../../schema/domain/seams.ts';
import type { DeclaredDisk } from '../../schema/repository/documents.ts';
import type { DataKeys, VaultKeys } from '../../schema/repository/keys.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import type { IndexFolder } from './index/index-folder.ts';
import type { PackWorker } from './maintenance/pack-worker.ts';
import type { LongWork } from './maintenance/long-work.ts';
import type { CollectOptions } from './maintenance/collect.ts';
import type { RemovalOptions } from './maintenance/removal.ts';
import type { RepairWork } from './maintenance/repair.ts';
import type { ServerTime, TimeReading } from './maintenance/repository-time.ts';
import type { Survey } from './maintenance/survey.ts';
import type { PlaceTrashed } from './maintenance/trashed-places.ts';
import type { Storage } from './storage/storage.ts';

export type RepositoryOptions = {
  /** Made when missing or empty. */
  storage: Storage;
  repositoryId: RepositoryId;
  /** Of an encrypted one; a new one with it is made encrypted. Null: it is, or will be, plain. */
  secret: Secret | null;
  /** For the index, a cache: may be lost at any time. */
  indexFolder: string | IndexFolder;
  /** Records that are kept in memory before they go into the index's folder; for tests, which have few. */
  indexDeltaEntries?: number;
  seams: Seams;
  /** So long a pack of map pages waits for more before it is closed; without, until the repository is. */
  idlePackMs?: number;
  /** The lanes' packs become closed ones: only those are checked and collected. */
  closePacks?: () => Promise<void>;
  /** The lanes have these data keys, in place of those they had, when it resolves. */
  tellLanes?: (keys: DataKeys) => Promise<void>;
  /** A clock that is not this host's: without one time does not go on, and nothing is removed for good. */
  serverTime?: ServerTime;
  /** How long the trash is kept at least, by repository time; 24 hours by default. */
  graceMs?: number;
  /** So long an undelete waits for a collection or repair to end; 20 s by default. */
  undeleteWaitMs?: number;
  /** From its seal a restore point can not be removed for so many days; 0, the default: it can. */
  lockDays?: number;
  /** Who reads packs for a check, made anew for each; without, there are quick checks only. */
  packWorker?: (of: { uuid: string; keys: VaultKeys | null }) => PackWorker;
};

export type Repository = {
  readonly repositoryId: RepositoryId;
  /** What its lane threads write and read with, as it is when they begin; null in a plain one. */
  readonly laneKeys: VaultKeys | null;
  /** Same run key: the same restore point again. RESTORE_POINT_SEALED, RESTORE_POINT_ABORTED, REPOSITORY_FULL. */
  openRestorePoint(spec: RestorePointSpec): Promise<Omit<OpenedRestorePoint, 'endpoint'>>;
  /** REPOSITORY_FULL when the disks clearly cannot fit. */
  declareDisks(of: { restorePointId: RestorePointId; run: RunKey; disks: DeclaredDisk[] }): Promise<void>;
  /** The fence is durable when it resolves. Same assignment number: the same answer. FENCED for a lower number. */
  assignTransfer(request: TransferRequest): Promise<Omit<TransferAssignment, 'endpoint'>>;
  /** NOT_CONSERVED, DAMAGED_BLOCK, REPOSITORY_FULL, RESTORE_POINT_ABORTED. Sealed before: the same outcome. */
  seal(request: SealRequest): Promise<SealOutcome>;
  /** Never opened (`restorePointId` null when it never became known): aborted, and an opening that comes late is refused. */
  abort(of: { restorePointId: RestorePointId | null; run: RunKey }): Promise<AbortOutcome>;
  readonly registrar: TransferRegistrar;
  readonly restoreSource: RestoreSource;
  /** For the mover's rehearsal: throws when no open restore point of this run is known. */
  rehearse(restorePointId: RestorePointId, run: RunKey): void;
  /** RESTORE_POINT_NOT_FOUND. */
  describeSealed(restorePointId: RestorePointId): SealOutcome;
  /** By time of the checkpoint. */
  listSealed(): SealedRestorePoint[];
  /** The same, and what lies in the trash, at one moment: each restore point is in exactly one of the two. */
  survey(): Promise<Survey>;
  /** Those of them that are in the trash and can be read, in no order. */
  describeTrashed(ids: readonly RestorePointId[]): Promise<TrashedRestorePoint[]>;
  /** The same in short, in the order of `ids`: however often it is asked, each manifest is read once. */
  placeTrashed: PlaceTrashed;
  listOpen(): {
    restorePointId: RestorePointId;
    run: RunKey;
    vmName: string;
    disks: DiskKey[];
    lastWriteAt: string;
  }[];
  /**
   * Makes room: what no restore point and no session needs goes to the trash, what lay there for the grace goes for good.
   * One at a time; sessions go on. Rejects with the signal's reason; whatever else ends it is told in the report.
   */
  collect(options: CollectOptions): Promise<CollectionReport>;
  /**
   * Moves a sealed restore point to the trash. RESTORE_POINT_NOT_FOUND; RESTORE_POINT_HELD: kept, held, locked or being
   * restored; LAST_RESTORE_POINT, unless `last` was said. Said again: the same outcome.
   */
  removeRestorePoint(id: RestorePointId, options?: RemovalOptions): Promise<RemovalOutcome>;
  /**
   * Takes a removal back. RESTORE_POINT_NOT_FOUND: too late; ALREADY_RUNNING: a collection or repair does not end soon. With
   * blocks that are damaged it comes back marked.
   */
  restoreFromTrash(id: RestorePointId): Promise<SealOutcome>;
  /** What is left out stays as it is; `hold` says why. RESTORE_POINT_NOT_FOUND, BAD_REQUEST. */
  setFlags(id: RestorePointId, flags: { keep?: boolean; hold?: string | null }): Promise<RestorePointFlags>;
  /** RESTORE_POINT_NOT_FOUND. */
  flagsOf(id: RestorePointId): RestorePointFlags;
  /**
   * One at a time; sessions go on. What is damaged is listed, and marked, and healed by the next session where that is
   * possible. RESTORE_POINT_NOT_FOUND; rejects with the signal's reason. Asked again after a kill it goes on.
   */
  check(request: CheckRequest, work: LongWork): Promise<CheckReport>;
  /**
   * Salvages what is sound; what it replaces rests in the trash. A dry run changes nothing and reports the same. Neither
   * checks nor collections run meanwhile; sessions go on. REPOSITORY_FULL; rejects with the signal's reason.
   */
  repair(work: RepairWork): Promise<RepairReport>;
  /** Walks the maps once for as long as no restore point comes or goes. HOST_DRAINING. */
  statistics(): Promise<RepositoryStatistics>;
  /** RESTORE_POINT_NOT_FOUND. */
  statisticsOf(id: RestorePointId): Promise<PointStatistics>;
  /** Null: nothing was found. */
  markOf(id: RestorePointId): RestorePointMark | null;
  /** Repository time, and whether it may be later than that. */
  readTime(): Promise<TimeReading>;
  /**
   * Sets repository time back to what both clocks show, where it is ahead of them; waits for a collection to end. `today`:
   * "2026-11-30", which they must show. CLOCK_IN_DOUBT, BAD_REQUEST.
   */
  resetClock(today: string): Promise<ClockReset>;
  /** After the mover's target. Keeps the index for the next start and gives the folder free. */
  close(): Promise<void>;
};

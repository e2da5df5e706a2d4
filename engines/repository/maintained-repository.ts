/** A repository with the verbs of its maintenance. Long work tells how far it is, and ends early when the signal aborts. */
import type { RestorePointId } from '../../schema/domain/ids.ts';
import type {
  CheckReport,
  CheckRequest,
  CollectionReport,
  MaintenanceProgress,
  RemovalOutcome,
  RepairReport,
  RepositoryStatistics,
} from '../../schema/domain/maintenance.ts';
import type { SealedRestorePoint } from '../../schema/domain/maintenance-sessions.ts';
import type { Repository } from './repository.ts';

export type LongWork = { signal: AbortSignal; onProgress: (progress: MaintenanceProgress) => void };

export type MaintainedRepository = Omit<Repository, 'listSealed'> & {
  collect(work: LongWork): Promise<CollectionReport>;
  /**
   * To the trash. RESTORE_POINT_NOT_FOUND; RESTORE_POINT_HELD (kept, held, locked); LAST_RESTORE_POINT, unless `last`: the
   * newest good one of its lineage.
   */
  removeRestorePoint(id: RestorePointId, options?: { last?: boolean }): Promise<RemovalOutcome>;
  /** RESTORE_POINT_NOT_FOUND: neither in the trash nor sealed. There already: nothing happens. */
  restoreFromTrash(id: RestorePointId): Promise<unknown>;
  setFlags(id: RestorePointId, flags: { keep: boolean; hold: string | null }): Promise<unknown>;
  check(request: CheckRequest, work: LongWork): Promise<CheckReport>;
  repair(work: LongWork & { dryRun: boolean }): Promise<RepairReport>;
  statistics(): Promise<RepositoryStatistics>;
  /** By time of the checkpoint. */
  listSealed(): SealedRestorePoint[];
  /** Never goes back; ISO 8601, UTC. */
  repositoryTime(): string;
};

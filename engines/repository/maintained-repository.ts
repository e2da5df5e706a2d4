/** A repository with the verbs of its maintenance. Long work tells how far it is, and ends early when the signal aborts. */
import type {
  CheckReport,
  CheckRequest,
  MaintenanceProgress,
  RepairReport,
  RepositoryStatistics,
} from '../../schema/domain/maintenance.ts';
import type { SealedRestorePoint } from '../../schema/domain/maintenance-sessions.ts';
import type { Repository } from './repository.ts';

export type LongWork = { signal: AbortSignal; onProgress: (progress: MaintenanceProgress) => void };

export type MaintainedRepository = Omit<Repository, 'listSealed'> & {
  /** By time of the checkpoint. */
  listSealed(): SealedRestorePoint[];
  check(request: CheckRequest, work: LongWork): Promise<CheckReport>;
  repair(work: LongWork & { dryRun: boolean }): Promise<RepairReport>;
  statistics(): Promise<RepositoryStatistics>;
};

/** Whether a repository's time stands still, in words for its owner. Pure. */
import type { RepositoryStatistics } from '../../schema/domain/maintenance.ts';
import type { Finding } from '../../schema/domain/states.ts';

/** Warnings; none when time goes on, or nothing is known. */
export function clockAlarmsOf(repositoryId: string, statistics: RepositoryStatistics | null): Finding[] {
  const doubt = statistics?.time?.doubt ?? null;
  if (doubt === null) return [];
  return [{ level: 'warning', code: doubt.code, message: `repository ${repositoryId}: ${doubt.message}` }];
}

/** Whether a repository is filling up, as the catalog knows it. */
import { alarmsOf, daysUntilFull, FORECAST_DAYS } from '../../engines/scheduler/forecast.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listRepositoryDays, loadRepositoryFigures } from '../../schema/catalog/repository-figures.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import type { RepositoryConfig } from '../../schema/domain/configuration.ts';
import type { Finding } from '../../schema/domain/states.ts';

/** Warnings, by the thresholds of the site. */
export async function repositoryAlarms(db: CatalogDatabase, repositoryId: string): Promise<Finding[]> {
  const row = (await listResources(db, 'repository')).find(({ id }) => id === repositoryId);
  const { alarms } = (row?.config ?? {}) as Partial<RepositoryConfig>;
  if (!alarms) return [];
  const { space } = await loadRepositoryFigures(db, repositoryId);
  const days = daysUntilFull(await listRepositoryDays(db, repositoryId, FORECAST_DAYS));
  return alarmsOf({ repositoryId, alarms, space, daysUntilFull: days });
}

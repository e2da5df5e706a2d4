/** How full a repository is, was, and will be, as the catalog knows it. */
import { clockAlarmsOf } from '../engines/scheduler/clock-alarms.ts';
import { alarmsOf, daysUntilFull, FORECAST_DAYS } from '../engines/scheduler/forecast.ts';
import type { CatalogDatabase } from '../schema/catalog/connection.ts';
import {
  listRepositoryDays,
  loadRepositoryFigures,
  type RepositoryDay,
  type RepositoryFigures,
} from '../schema/catalog/repository-figures.ts';
import type { ResourceRow } from '../schema/catalog/resources.ts';
import type { RepositoryConfig } from '../schema/domain/configuration.ts';

/** More than the forecast looks at: for whoever draws them. */
const DAYS_SHOWN = 400;

/** `alarms`: by the thresholds of site.yaml. `days`: oldest first. */
export type Figures = RepositoryFigures & { daysUntilFull: number | null; alarms: string[]; days: RepositoryDay[] };

export async function figuresOf(
  db: CatalogDatabase,
  { id, config }: Pick<ResourceRow, 'id' | 'config'>,
): Promise<Figures> {
  const figures = await loadRepositoryFigures(db, id);
  const days = await listRepositoryDays(db, id, DAYS_SHOWN);
  const untilFull = daysUntilFull(days.slice(-FORECAST_DAYS));
  const { alarms } = config as RepositoryConfig;
  const filling = alarmsOf({ repositoryId: id, alarms, space: figures.space, daysUntilFull: untilFull });
  const told = [...clockAlarmsOf(id, figures.statistics), ...filling];
  return { ...figures, daysUntilFull: untilFull, alarms: told.map(({ message }) => message), days };
}

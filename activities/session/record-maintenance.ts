/** What the steps of a maintenance came to, in the catalog's rows and in the session's story. */
import { clockAlarmsOf } from '../../engines/scheduler/clock-alarms.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { recordEvents, type SessionEvent } from '../../schema/catalog/events.ts';
import { recordOutcome } from '../../schema/catalog/maintenance-outcomes.ts';
import { recordSpace, recordStatistics } from '../../schema/catalog/repository-figures.ts';
import { storeMarks, storeRemoved } from '../../schema/catalog/repository-restore-points.ts';
import type { LineageRetention, MaintenanceOutcome } from '../../schema/domain/maintenance-sessions.ts';
import type { ControlActivities } from '../contract.ts';
import { repositoryAlarms } from './repository-alarms.ts';

type Of = Parameters<ControlActivities['recordMaintenance']>[0];

/** `at`: ISO 8601. */
export async function recordMaintenance(
  db: CatalogDatabase,
  of: Of,
  at: string,
): ReturnType<ControlActivities['recordMaintenance']> {
  const { sessionId, repositoryId, part, outcome } = of;
  await recordOutcome(db, { sessionId, part, outcome, at: new Date(at) });
  await takeOver(db, repositoryId, outcome, at);
  if (outcome.step === 'retention' && !outcome.dryRun) await tellRetention(db, sessionId, outcome.lineages, at);
  if (outcome.step !== 'statistics') return { alarms: [] };
  const clock = clockAlarmsOf(repositoryId, outcome.statistics);
  return { alarms: [...clock, ...(await repositoryAlarms(db, repositoryId))] };
}

async function takeOver(
  db: CatalogDatabase,
  repository: string,
  outcome: MaintenanceOutcome,
  at: string,
): Promise<void> {
  switch (outcome.step) {
    case 'retention':
      return outcome.dryRun ? undefined : await storeRetention(db, outcome.lineages);
    case 'check': {
      const { marked: damaged, healed, damages } = outcome.report;
      const why = damages[0]?.why.message ?? 'a check found damage';
      return await storeMarks(db, { damaged, healed, why });
    }
    case 'statistics': {
      const { statistics, space } = outcome;
      if (space) await recordSpace(db, repository, space);
      return await recordStatistics(db, repository, statistics, space?.at ?? at);
    }
    case 'import':
    case 'collection':
    case 'repair':
    case 'reset-clock':
    case 'open-points':
  }
}

/** Rows of what went to the trash, now or when the first try was made. */
export const storeRetention = (db: CatalogDatabase, lineages: readonly LineageRetention[]): Promise<void> =>
  storeRemoved(
    db,
    lineages.flatMap(({ decisions, trashed = [] }) => [
      ...trashed,
      ...decisions.flatMap(({ restorePointId, trashedUntil, asOf }) =>
        asOf === null ? [] : [{ restorePointId, trashedUntil, asOf }],
      ),
    ]),
  );

/** A line for each that went, or that the repository would not let go. */
export async function tellRetention(
  db: CatalogDatabase,
  sessionId: string,
  lineages: readonly LineageRetention[],
  at: string,
): Promise<void> {
  const events = lineages.flatMap(({ vmName, vmId, decisions }): SessionEvent[] =>
    decisions
      .filter(({ outcome }) => outcome === 'removed' || outcome === 'refused')
      .map((decision) => {
        const { restorePointId, takenAt, outcome, trashedUntil, reasons, refusal } = decision;
        const point = `restore point ${restorePointId.slice(0, 12)} of VM ${vmName}, taken ${takenAt},`;
        const until = trashedUntil === null ? '' : `, can be brought back until ${trashedUntil}`;
        const message =
          outcome === 'removed'
            ? `${point} goes: ${reasons.join('; ')}${until}`
            : `${point} stays though no rule keeps it: ${refusal?.message ?? ''}`;
        const code = outcome === 'removed' ? 'RESTORE_POINT_REMOVED' : (refusal?.code ?? 'RESTORE_POINT_HELD');
        return { sessionId, vmId, eventKey: `retention-${restorePointId}`, at, level: 'info', code, message };
      }),
  );
  await recordEvents(db, events);
}

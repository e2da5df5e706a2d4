/** Maintenance of a repository, as control sees it: its session, its policies, and the catalog's side of its steps. */
import { listRequests } from '../../schema/catalog/leases.ts';
import { loadLineagePolicies } from '../../schema/catalog/absent-vms.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { recordEvents } from '../../schema/catalog/events.ts';
import { importSessions } from '../../schema/catalog/imported-sessions.ts';
import { storePage, storePoints, storeRemoved, storeSigns } from '../../schema/catalog/repository-restore-points.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { LineagePolicy } from '../../schema/domain/maintenance-sessions.ts';
import { requestOrders } from '../../schema/domain/scheduling.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { withCatalogErrors } from '../catalog-errors.ts';
import type { ControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { unpackRestorePoints } from '../repository/restore-point-pages.ts';
import type { WorkflowView } from '../temporal-views.ts';
import { beginAlone } from './begin-alone.ts';
import { eventsOf } from './session-activities.ts';
import { recordMaintenance, storeRetention, tellRetention } from './record-maintenance.ts';

export type MaintenanceDependencies = { db: CatalogDatabase; workflows: WorkflowView; clock: Clock };
type MaintenanceActivities = Pick<
  ControlActivities,
  | 'startMaintenance'
  | 'othersWait'
  | 'planRetention'
  | 'recordMaintenance'
  | 'recordFindings'
  | 'recordRetention'
  | 'reconcileRestorePoints'
  | 'importRestorePoints'
  | 'recordRestorePointChange'
  | 'recordSuspects'
>;
type Of<Verb extends keyof MaintenanceActivities> = Parameters<MaintenanceActivities[Verb]>[0];

/** A decision is about 200 bytes, and is in the history twice. */
const MOST_POINTS_PER_PLAN = 500;
const MOST_LINEAGES_PER_PLAN = 100;

export function createMaintenanceActivities(dependencies: MaintenanceDependencies): MaintenanceActivities {
  const { db, clock } = dependencies;
  const now = (): string => new Date(clock.now()).toISOString();
  return translating(
    withCatalogErrors({
      startMaintenance: (of) => startMaintenance(of, dependencies, now()),
      othersWait: (of) => othersWait(of, db),
      planRetention: (of) => planRetention(of, db, now()),
      recordMaintenance: (of) => recordMaintenance(db, of, now()),
      recordFindings: ({ sessionId, about, findings }) => recordEvents(db, eventsOf(sessionId, about, findings, now())),
      recordRetention: async ({ sessionId, lineages }) => {
        await storeRetention(db, lineages);
        await tellRetention(db, sessionId, lineages, now());
      },
      reconcileRestorePoints: ({ repositoryId, page }) => storePage(db, repositoryId, page),
      importRestorePoints: async (packed) => {
        const points = unpackRestorePoints(packed);
        await storePoints(db, points, packed.asOf);
        const manifests = points.map(({ manifest }) => manifest);
        return { sessionsAdded: await importSessions(db, manifests) };
      },
      recordRestorePointChange: async (changed) => {
        if (changed.removed) await storeRemoved(db, [changed]);
        else await storePoints(db, [changed], changed.asOf);
      },
      recordSuspects: ({ signs }) => storeSigns(db, signs),
    } satisfies MaintenanceActivities),
  );
}

async function startMaintenance(
  { input, workflowId, startedAt }: Of<'startMaintenance'>,
  { db, workflows }: MaintenanceDependencies,
  endedAt: string,
): Promise<void> {
  const { sessionId, repositoryId, startedBy } = input;
  const known = (await listResources(db, 'repository')).filter(({ state }) => state !== 'removed');
  if (!known.some(({ id }) => id === repositoryId))
    throw new TidemarkError('NOT_FOUND', `there is no repository ${repositoryId} in the site`, { repositoryId });
  const times = { nominalTime: startedAt, startedAt };
  const session = { sessionId, kind: 'maintenance', jobId: null, repositoryId, workflowId, startedBy } as const;
  await beginAlone({ ...session, ...times, spec: { input } }, { db, workflows, endedAt });
}

async function othersWait(
  { repositoryId, workflowId }: Of<'othersWait'>,
  db: CatalogDatabase,
): Promise<{ waiting: number }> {
  const waiting = (await listRequests(db)).filter(
    (request) =>
      request.state === 'waiting' &&
      request.workflowId !== workflowId &&
      request.wants.repositoryId === repositoryId &&
      request.order > requestOrders.maintenance,
  );
  return { waiting: waiting.length };
}

async function planRetention(
  { repositoryId, after }: Of<'planRetention'>,
  db: CatalogDatabase,
  at: string,
): ReturnType<MaintenanceActivities['planRetention']> {
  const all = await loadLineagePolicies(db, repositoryId, new Date(at));
  const left = all
    .toSorted((a, b) => (a.lineage < b.lineage ? -1 : 1))
    .filter((each) => after === null || each.lineage > after);
  const lineages: LineagePolicy[] = [];
  let points = 0;
  for (const { count, ...policy } of left) {
    points += count;
    if (lineages.length > 0 && (points > MOST_POINTS_PER_PLAN || lineages.length === MOST_LINEAGES_PER_PLAN)) break;
    lineages.push(policy);
  }
  return { lineages, next: lineages.length < left.length ? lineages.at(-1)!.lineage : null };
}

/** What the janitor asks of control: what there is to go round, and whose runs are over. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { recordEvents, type SessionEvent } from '../../schema/catalog/events.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { loadRunOwners } from '../../schema/catalog/run-owners.ts';
import { loadSite } from '../../schema/catalog/site.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import { hostId, repositoryId, type RunKey } from '../../schema/domain/ids.ts';
import type { RunJudgement } from '../../schema/domain/maintenance-sessions.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { withCatalogErrors } from '../catalog-errors.ts';
import type { ControlActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import type { WorkflowView } from '../temporal-views.ts';
import { askStates } from './workflow-states.ts';

export type JanitorDependencies = { db: CatalogDatabase; workflows: WorkflowView; clock: Clock; log: Log };
type JanitorActivities = Pick<ControlActivities, 'listSiteParts' | 'judgeRuns' | 'recordJanitor'>;

export function createJanitorActivities({ db, workflows, clock, log }: JanitorDependencies): JanitorActivities {
  return translating(
    withCatalogErrors({
      listSiteParts: async () => {
        const idsOf = async (kind: 'host' | 'repository'): Promise<string[]> =>
          (await listResources(db, kind)).filter(({ state }) => state !== 'removed').map(({ id }) => id);
        const site = (await loadSite(db))?.site ?? null;
        return {
          site,
          hosts: (await idsOf('host')).map(hostId),
          repositories: (await idsOf('repository')).map(repositoryId),
        };
      },
      judgeRuns: (of) => judgeRuns(of, { db, workflows, log }),
      recordJanitor: async ({ removed }) => {
        const owners = await loadRunOwners(
          db,
          removed.map(({ run }) => run),
        );
        const at = new Date(clock.now()).toISOString();
        const events = removed.flatMap(({ run, message }, index): SessionEvent[] => {
          const owner = owners.find((each) => each.run === run);
          if (!owner) return [];
          const { sessionId, vmId } = owner;
          const eventKey = `janitor-${at}-${index}`;
          return [{ sessionId, vmId, eventKey, at, level: 'info', code: 'TAKEN_AWAY', message }];
        });
        await recordEvents(db, events);
      },
    } satisfies JanitorActivities),
  );
}

/**
 * Closed: its workflow is, or is forgotten by Temporal after its session has ended. No answer means that it lives; so does
 * a workflow that Temporal does not know while its session is open: rather than the workflow, Temporal may have lost its
 * memory. Of runs that the catalog does not know, those are closed that no open workflow has as its search attribute.
 */
async function judgeRuns(
  { runs, witness }: { runs: readonly RunKey[]; witness: string | null },
  { db, workflows, log }: Omit<JanitorDependencies, 'clock'>,
): Promise<RunJudgement> {
  const owners = new Map((await loadRunOwners(db, runs)).map((owner) => [owner.run, owner]));
  const ids = [...new Set([...owners.values()].map(({ workflowId }) => workflowId))];
  const states = await askStates(ids, workflows, (workflowId, error) =>
    log.debug('a workflow is taken for open', { workflowId, why: messageOf(error) }),
  );
  const isClosed = (run: RunKey): boolean => {
    const owner = owners.get(run);
    const is = owner && states.get(owner.workflowId)?.is;
    return is === 'closed' || (is === 'not-found' && owner!.hasEnded);
  };
  const strange = runs.filter((run) => !owners.has(run));
  const open = await openAmong(strange, witness, { workflows, log });
  const isOver = (run: RunKey): boolean => (owners.has(run) ? isClosed(run) : open?.includes(run) === false);
  return { closed: runs.filter(isOver), unknown: open === null ? strange : [] };
}

/** Null when Temporal does not say. */
async function openAmong(
  runs: readonly RunKey[],
  witness: string | null,
  { workflows, log }: Pick<JanitorDependencies, 'workflows' | 'log'>,
): Promise<RunKey[] | null> {
  if (runs.length === 0) return [];
  try {
    return await workflows.openRuns(runs, witness);
  } catch (error) {
    log.warn('runs that the catalog does not know are taken for open', { runs: runs.length, why: messageOf(error) });
    return null;
  }
}

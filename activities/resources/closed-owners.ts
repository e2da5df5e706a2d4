/**
 * Leases whose workflow was closed without giving them back (terminated by hand), and sessions likewise. Whether a
 * workflow lives is asked by id; no answer means that it does. What is closed must be seen closed twice, 30 s apart:
 * by then its activities have learnt of it from their heartbeats and write no more. When Temporal has lost its memory, and
 * does not find it again for a quarter of an hour, what it forgot is closed too: else nothing could ever be backed up
 * or restored again.
 */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listLeaseOwners, releaseLeases } from '../../schema/catalog/leases.ts';
import { closeAbandonedSession, listSessions } from '../../schema/catalog/sessions.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { abandonedError } from '../session/abandoned.ts';
import type { WorkflowState, WorkflowView } from '../temporal-views.ts';
import { askStates } from './workflow-states.ts';

export type ClosedOwnersOptions = {
  db: CatalogDatabase;
  workflows: WorkflowView;
  clock: Clock;
  log: Log;
  /** Leases were given back. */
  onFreed(): void;
};

const SEEN_APART_MS = 30_000;
const MOST_SESSIONS = 1000;
/** So long somebody has for putting the right database back, before those it knows lose what they hold. */
const SEEN_APART_AFTER_LOSS_MS = 15 * 60_000;
/** More unknown workflows than this at once, and it is rather Temporal that lost its memory. */
const mostUnknown = (owners: number): number => Math.max(3, owners / 10);

/** Workflows of a session's VMs are named below it. */
const deepestFirst = ([a]: [string, unknown], [b]: [string, unknown]): number => b.length - a.length;
const hasMore = (owners: ReadonlySet<string>, gone: readonly string[], workflowId: string): boolean =>
  [...owners].some((owner) => owner.startsWith(`${workflowId}/`) && !gone.includes(owner));

type Closed = Exclude<WorkflowState, { is: 'open' }>;

export class ClosedOwners {
  readonly #options: ClosedOwnersOptions;
  /** Since when a workflow was seen closed, ms of the monotonic clock. */
  readonly #seen = new Map<string, number>();
  #wasLoss = false;

  constructor(options: ClosedOwnersOptions) {
    this.#options = options;
  }

  /** One sweep; returns the workflows whose leases or sessions were taken from them. */
  async sweep(): Promise<string[]> {
    const { db, clock, log } = this.#options;
    const sessions = await listSessions(db, { open: true, limit: MOST_SESSIONS });
    const owners = new Set([...(await listLeaseOwners(db)), ...sessions.map(({ workflowId }) => workflowId)]);
    const closed = await this.#closedOf([...owners]);
    const isLoss = this.#isLoss(closed, owners.size);
    // Some may have been asked for just before the right database was back.
    const isFound = this.#wasLoss && !isLoss;
    this.#wasLoss = isLoss;
    for (const workflowId of this.#seen.keys()) {
      const state = closed.get(workflowId);
      if (state === undefined || (isFound && state.is === 'not-found')) this.#seen.delete(workflowId);
    }
    const gone: string[] = [];
    for (const [workflowId, state] of [...closed].toSorted(deepestFirst)) {
      const sinceMs = this.#seen.get(workflowId) ?? clock.monotonic();
      this.#seen.set(workflowId, sinceMs);
      const apartMs = isLoss && state.is === 'not-found' ? SEEN_APART_AFTER_LOSS_MS : SEEN_APART_MS;
      if (clock.monotonic() - sinceMs < apartMs) continue;
      // Who reads that a session is over may count on what its VMs held: their workflows go first.
      if (hasMore(owners, gone, workflowId)) continue;
      const freed = await releaseLeases(db, workflowId);
      const endedAt = new Date(clock.now()).toISOString();
      const error = abandonedError(workflowId, state)!;
      for (const { sessionId } of sessions.filter((session) => session.workflowId === workflowId))
        await closeAbandonedSession(db, sessionId, { endedAt, error });
      log.warn('took leases and session from a workflow that is closed', { workflowId, freed, why: error.message });
      this.#seen.delete(workflowId);
      gone.push(workflowId);
    }
    if (gone.length > 0) this.#options.onFreed();
    return gone;
  }

  async #closedOf(owners: string[]): Promise<Map<string, Closed>> {
    const { workflows, log } = this.#options;
    const states = await askStates(owners, workflows, (workflowId, error) =>
      log.debug('a workflow is taken for open', { workflowId, why: messageOf(error) }),
    );
    return new Map([...states].filter((entry): entry is [string, Closed] => entry[1].is !== 'open'));
  }

  /** Whether Temporal has forgotten too many for each of them to have been deleted by somebody. */
  #isLoss(closed: ReadonlyMap<string, Closed>, owners: number): boolean {
    const unknown = [...closed.values()].filter(({ is }) => is === 'not-found').length;
    const isLoss = unknown > mostUnknown(owners);
    if (isLoss && !this.#wasLoss)
      this.#options.log.error('Temporal does not know many workflows that hold leases: they keep them for a while', {
        owners,
        unknown,
        minutes: SEEN_APART_AFTER_LOSS_MS / 60_000,
      });
    return isLoss;
  }
}

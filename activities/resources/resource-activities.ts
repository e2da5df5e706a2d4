/** Slots and locks: taken together, given back together, waited for without a query of one's own. */
import { Context } from '@temporalio/activity';
import { decide } from '../../engines/scheduler/decide.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import {
  confirmLeases,
  enqueueRequest,
  grantPass,
  releaseLeases,
  takeGrant,
  withdrawRequest,
} from '../../schema/catalog/leases.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { withMachines } from './machines-of-proxies.ts';
import type { HeldLease, ResourceRequest } from '../../schema/domain/scheduling.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import type { WaitHeartbeat } from '../../schema/domain/sessions.ts';
import { withCatalogErrors } from '../catalog-errors.ts';
import type { ControlActivities, WaitActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import type { QueueView } from '../temporal-views.ts';
import { GrantLoop, type RequestKey, type Taken } from './grant-loop.ts';
import { refuseRemoved } from './removed-resources.ts';

export type ResourceDependencies = {
  db: CatalogDatabase;
  queues: QueueView;
  clock: Clock;
  log: Log;
  /** How long an attempt waits before it fails NO_CAPACITY; default 60 s. */
  holdMs?: number;
};
export type ResourceActivities = WaitActivities &
  Pick<ControlActivities, 'confirmLeases' | 'releaseResources' | 'probeQueue'>;

const HOLD_MS = 60_000;
const BEAT_MS = 5000;
const firstWait: WaitHeartbeat = {
  position: null,
  reason: { code: 'new', message: 'waits for the next grant pass' },
};

/** All of one control process share the loop. `kick` it when leases were given back by another way. */
export function createGrantLoop({ db, clock, log }: Pick<ResourceDependencies, 'db' | 'clock' | 'log'>): GrantLoop {
  const look = async ({ workflowId, requestNumber }: RequestKey): Promise<Taken> => {
    const taken = await takeGrant(db, workflowId, requestNumber);
    if (taken.state === 'unknown') return { is: 'gone' };
    return taken.state === 'granted'
      ? { is: 'granted', leases: taken.leases }
      : { is: 'waiting', position: taken.position, reason: taken.reason };
  };
  return new GrantLoop({ pass: () => grantPass(db, decide, clock.now()), look, log });
}

export function createResourceActivities(dependencies: ResourceDependencies, loop: GrantLoop): ResourceActivities {
  const { db, queues } = dependencies;
  return translating(
    withCatalogErrors({
      acquireResources: (request) => acquire(request, dependencies, loop),
      confirmLeases: async ({ workflowId, leaseIds }) => void (await confirmLeases(db, workflowId, leaseIds)),
      releaseResources: async ({ workflowId, leaseIds }) => {
        await releaseLeases(db, workflowId, leaseIds ?? undefined);
        loop.kick();
      },
      probeQueue: async ({ queue }) => ({ silentMs: await queues.silentMs(queue) }),
    } satisfies ResourceActivities),
  );
}

/**
 * A waiter that is cancelled takes its own request out of the line; that of one cancelled between two attempts is
 * taken out by the workflow's `releaseResources`.
 */
async function acquire(request: ResourceRequest, of: ResourceDependencies, loop: GrantLoop): Promise<HeldLease[]> {
  const { db, log, holdMs = HOLD_MS } = of;
  const { workflowId, requestNumber } = request;
  const context = Context.current();
  const withdraw = async (): Promise<void> => {
    try {
      await withdrawRequest(db, workflowId, requestNumber);
      loop.kick();
    } catch (error) {
      log.warn('a request stays in line until its workflow releases it', { workflowId, error: messageOf(error) });
    }
  };
  try {
    await refuseRemoved(db, request.wants);
    await enqueueRequest(db, request);
    const taken = await waitBeating(request, context, loop, holdMs);
    if (taken.is === 'granted') return await withMachines(db, taken.leases);
    context.cancellationSignal.throwIfAborted();
    if (taken.is === 'gone')
      throw new TidemarkError('LEASE_LOST', `the request of ${workflowId} was taken out of the line`, { workflowId });
    throw new TidemarkError('NO_CAPACITY', taken.reason.message, {
      position: taken.position,
      reason: taken.reason.code,
    });
  } catch (error) {
    // Not at a timeout or a shutdown: then another attempt goes on with the request.
    const isWanted = !context.cancellationDetails?.cancelRequested && !isRemoved(error);
    if (!isWanted) await withdraw();
    throw error;
  }
}

const isRemoved = (error: unknown): boolean => error instanceof TidemarkError && error.code === 'RESOURCE_REMOVED';

async function waitBeating(key: RequestKey, context: Context, loop: GrantLoop, holdMs: number): Promise<Taken> {
  let wait = firstWait;
  const beat = (): void => context.heartbeat(wait);
  beat();
  const timer = setInterval(beat, BEAT_MS);
  const enough = new AbortController();
  const hold = setTimeout(() => enough.abort(), holdMs);
  const stop = (): void => enough.abort();
  context.cancellationSignal.addEventListener('abort', stop, { once: true });
  if (context.cancellationSignal.aborted) stop();
  try {
    const taken = await loop.wait(key, enough.signal, (now) => {
      const isNews = now.position !== wait.position || now.reason.message !== wait.reason.message;
      wait = now;
      if (isNews) beat();
    });
    return taken ?? { is: 'waiting', ...wait };
  } finally {
    clearTimeout(hold);
    clearInterval(timer);
    context.cancellationSignal.removeEventListener('abort', stop);
  }
}

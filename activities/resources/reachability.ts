/** Keeps in the catalog which hosts, proxies and repositories answer: the scheduler places nothing on the others. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources, setReachable, type ResourceRow } from '../../schema/catalog/resources.ts';
import { hostId, proxyId, repositoryId } from '../../schema/domain/ids.ts';
import { hostCtlQueue, proxyQueue, repositoryCtlQueue } from '../../schema/domain/queues.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import type { WorkerWatch } from './worker-watch.ts';

export type ReachabilityOptions = { db: CatalogDatabase; watch: WorkerWatch; clock: Clock; log: Log };

/** How old "last seen" may be in the catalog while a worker is alive. */
const SEEN_AGE_MS = 30_000;
const queueOf = {
  host: (id: string) => hostCtlQueue(hostId(id)),
  proxy: (id: string) => proxyQueue(proxyId(id)),
  repository: (id: string) => repositoryCtlQueue(repositoryId(id)),
} as const;

/** Stores what changed; true when anything became reachable or silent. */
export async function storeReachability({ db, watch, clock, log }: ReachabilityOptions): Promise<boolean> {
  let changed = false;
  for (const kind of ['host', 'proxy', 'repository'] as const) {
    for (const row of await listResources(db, kind)) {
      if (row.state === 'removed') continue;
      const verdict = watch.verdict(queueOf[kind](row.id), clock.monotonic());
      if (!isNews(row, verdict, clock.now())) continue;
      const reachable = verdict === 'alive';
      await setReachable(db, kind, row.id, reachable, new Date(clock.now()));
      if (reachable === row.reachable) continue;
      changed = true;
      if (reachable) log.info('answers again', { kind, id: row.id });
      else log.warn('does not answer', { kind, id: row.id, lastSeen: row.seenAt });
    }
  }
  return changed;
}

function isNews(row: ResourceRow, verdict: ReturnType<WorkerWatch['verdict']>, nowMs: number): boolean {
  if (verdict === 'unknown') return false;
  if (verdict === 'silent') return row.reachable;
  return !row.reachable || row.seenAt === null || nowMs - Date.parse(row.seenAt) > SEEN_AGE_MS;
}

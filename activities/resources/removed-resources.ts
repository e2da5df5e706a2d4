/** A request for what the site no longer has would wait for ever. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { ResourceWants } from '../../schema/domain/scheduling.ts';

/** RESOURCE_REMOVED when host, repository or every proxy that could serve is not in the site (any more). */
export async function refuseRemoved(db: CatalogDatabase, wants: ResourceWants): Promise<void> {
  const known = async (kind: 'host' | 'proxy' | 'repository'): Promise<Set<string>> => {
    const rows = await listResources(db, kind);
    return new Set(rows.filter(({ state }) => state !== 'removed').map(({ id }) => id));
  };
  for (const [kind, id] of [
    ['host', wants.hostId],
    ['repository', wants.repositoryId],
  ] as const)
    if (id !== null && !(await known(kind)).has(id)) throw removed(`${kind} ${id} is not in the site`, { [kind]: id });
  if (wants.proxies === null) return;
  const proxies = await known('proxy');
  const named = wants.proxies.length === 0 ? [...proxies] : wants.proxies;
  if (named.some((id) => proxies.has(id))) return;
  const message =
    named.length === 0 ? 'the site has no proxy' : `of the proxies ${named.join(', ')} none is in the site`;
  throw removed(message, { proxies: wants.proxies });
}

const removed = (message: string, details: Record<string, unknown>): TidemarkError =>
  new TidemarkError('RESOURCE_REMOVED', message, details);

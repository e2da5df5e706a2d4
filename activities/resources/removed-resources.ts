/** A request for what the site no longer has, or cannot serve, would wait for ever. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { isReadOnItsMachineOnly, listResources, type ResourceRow } from '../../schema/catalog/resources.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { ResourceWants } from '../../schema/domain/scheduling.ts';

/**
 * RESOURCE_REMOVED when host, repository or every proxy that could serve is not in the site (any more). A proxy of
 * another machine cannot serve a host that is read on its own machine only.
 */
export async function refuseRemoved(db: CatalogDatabase, wants: ResourceWants): Promise<void> {
  const known = async (kind: 'host' | 'proxy' | 'repository'): Promise<ResourceRow[]> =>
    (await listResources(db, kind)).filter(({ state }) => state !== 'removed');
  const [hosts, { repositoryId, hostId }] = [await known('host'), wants];
  if (hostId !== null && !has(hosts, hostId)) throw removed(`host ${hostId} is not in the site`, { host: hostId });
  if (repositoryId !== null && !has(await known('repository'), repositoryId))
    throw removed(`repository ${repositoryId} is not in the site`, { repository: repositoryId });
  if (wants.proxies === null) return;
  const readHost = hosts.find(({ id }) => id === (hostId ?? wants.nearHostId));
  refuseWithoutProxy(wants, wants.proxies, await known('proxy'), readHost);
}

const has = (rows: readonly ResourceRow[], id: string): boolean => rows.some((row) => row.id === id);

function refuseWithoutProxy(
  { excludedProxies }: ResourceWants,
  named: readonly string[],
  known: readonly ResourceRow[],
  host: ResourceRow | undefined,
): void {
  const proxies = known.filter(({ id }) => named.length === 0 || named.includes(id));
  const excluded = new Set<string>(excludedProxies);
  const able =
    host && isReadOnItsMachineOnly(host) ? proxies.filter((row) => row.machineId === host.machineId) : proxies;
  if (able.some(({ id }) => !excluded.has(id))) return;
  throw removed(whyNone(named, proxies, able, host), { proxies: named });
}

function whyNone(
  named: readonly string[],
  proxies: readonly ResourceRow[],
  able: readonly ResourceRow[],
  host: ResourceRow | undefined,
): string {
  const of = named.length === 0 ? 'of the proxies of the site' : `of the proxies ${named.join(', ')}`;
  if (able.length > 0) return `${of} that can serve each was excluded`;
  if (proxies.length > 0 && host)
    return `host ${host.id} is read on its own machine ${host.machineId} only, and ${of} none is there`;
  return named.length === 0 ? 'the site has no proxy' : `${of} none is in the site`;
}

const removed = (message: string, details: Record<string, unknown>): TidemarkError =>
  new TidemarkError('RESOURCE_REMOVED', message, details);

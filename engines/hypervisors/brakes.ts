/** Which brakes hold for reading a disk: that of its host, and that of the datastore its file lies in. */
import type { BrakeConfig, HostConfig } from '../../schema/domain/configuration.ts';

/** As part of a `DiskAccess`; nothing where there are none. `file`: absolute; null where it is not known. */
export function brakesFor(
  { hostId, limits, datastores = [] }: Pick<HostConfig, 'hostId' | 'limits' | 'datastores'>,
  file: string | null,
): { brakes?: BrakeConfig[] } {
  const brakes: BrakeConfig[] = limits ? [{ name: `host ${hostId}`, ...limits }] : [];
  // Of folders within one another the inner one counts.
  const [datastore] = datastores
    .filter(({ folder }) => file?.startsWith(`${folder}/`))
    .toSorted((a, b) => b.folder.length - a.folder.length);
  if (datastore) brakes.push({ name: `datastore ${datastore.name}`, ...datastore.limits });
  return brakes.length === 0 ? {} : { brakes };
}

/** Which brakes hold for a disk: that of its host, and that of the datastore its file lies in. */
import path from 'node:path';
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

/** Of a restore into `folder`: where it lies in a datastore of one of the machine's hosts, as for a disk there. */
export function brakesForRestore(hosts: readonly HostConfig[], folder: string): { brakes?: BrakeConfig[] } {
  // A file in it, whatever its name.
  const file = path.join(path.resolve(folder), 'disk');
  const depthOf = ({ datastores = [] }: HostConfig): number =>
    Math.max(-1, ...datastores.filter((of) => file.startsWith(`${of.folder}/`)).map((of) => of.folder.length));
  const [host] = hosts.filter((each) => depthOf(each) >= 0).toSorted((a, b) => depthOf(b) - depthOf(a));
  return host ? brakesFor(host, file) : {};
}

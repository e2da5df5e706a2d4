/** Which machine each proxy of the site is on: what a repository binds a transfer to. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { machineId, type MachineId, type ProxyId } from '../../schema/domain/ids.ts';

export async function machinesOfProxies(db: CatalogDatabase): Promise<Record<ProxyId, MachineId>> {
  const rows = await listResources(db, 'proxy');
  return Object.fromEntries(
    rows.flatMap(({ id, machineId: machine }) => (machine === null ? [] : [[id, machineId(machine)]])),
  ) as Record<ProxyId, MachineId>;
}

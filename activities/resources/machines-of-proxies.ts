/** Which machine each proxy that was granted is on: what a repository binds a transfer to. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listResources } from '../../schema/catalog/resources.ts';
import { machineId } from '../../schema/domain/ids.ts';
import type { HeldLease } from '../../schema/domain/scheduling.ts';

export async function withMachines(db: CatalogDatabase, leases: readonly HeldLease[]): Promise<HeldLease[]> {
  const machines = new Map((await listResources(db, 'proxy')).map((row) => [row.id, row.machineId]));
  return leases.map((lease) => {
    const machine = lease.kind === 'proxy' ? machines.get(lease.id) : null;
    return machine ? { ...lease, machineId: machineId(machine) } : lease;
  });
}

/** Machines, hosts, proxies, repositories and the inventory of VMs. */
import type { Kysely } from 'kysely';
import { type HostConfig, readsOffHost } from '../domain/configuration.ts';
import type { VmSummary } from '../domain/hypervisor.ts';
import { diskKey, hostId, vmId } from '../domain/ids.ts';
import type { VmId } from '../domain/ids.ts';
import type { ResourceKind, ResourceState, ResourceWants } from '../domain/scheduling.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, isoOrNull, toJson } from './json.ts';
import type { CatalogTables, ResourceRowState } from './tables.ts';

export type ResourceRow = {
  id: string;
  machineId: string;
  slots: number;
  state: ResourceRowState;
  reachable: boolean;
  /** ISO 8601, UTC; null: never. */
  seenAt: string | null;
  config: unknown;
};
type Listed = Exclude<ResourceKind, 'vm'>;
const places = {
  host: ['hosts', 'host_id'],
  proxy: ['proxies', 'proxy_id'],
  repository: ['repositories', 'repository_id'],
} as const satisfies Record<Listed, readonly [string, string]>;

/** Hosts, proxies or repositories, those removed last. */
export async function listResources(db: Kysely<CatalogTables>, kind: Listed): Promise<ResourceRow[]> {
  const [table, idColumn] = places[kind];
  const rows = await db
    .selectFrom(table)
    .select(['machine_id', 'slots', 'state', 'reachable', 'seen_at', 'config', `${idColumn} as id`])
    .orderBy('state')
    .orderBy('id')
    .execute();
  return rows.map((row) => ({
    id: (row as { id: string }).id,
    machineId: row.machine_id,
    slots: row.slots,
    state: row.state,
    reachable: row.reachable !== 0,
    seenAt: isoOrNull(row.seen_at),
    config: fromJson(row.config),
  }));
}

/** Whether no proxy of another machine can read the disks of this host. */
export const isReadOnItsMachineOnly = ({ config }: ResourceRow): boolean =>
  !readsOffHost[(config as HostConfig).provider];

/** Limits and use of everything that gives slots, and the VM locks held. A drained or removed one has limit 0. */
export async function loadResourceStates(db: Kysely<CatalogTables>): Promise<ResourceState[]> {
  const used = await db
    .selectFrom('leases')
    .select(['kind', 'resource_id', (eb) => eb.fn.sum<number | string>('units').as('units')])
    .groupBy(['kind', 'resource_id'])
    .execute();
  const usedOf = new Map(used.map((row) => [`${row.kind} ${row.resource_id}`, Number(row.units)]));
  const space = await loadSpace(db);
  const states: ResourceState[] = [];
  for (const kind of ['host', 'proxy', 'repository'] as const)
    for (const row of await listResources(db, kind))
      states.push({
        kind,
        id: row.id,
        limit: row.state === 'active' ? row.slots : 0,
        used: usedOf.get(`${kind} ${row.id}`) ?? 0,
        reachable: row.reachable,
        machineId: row.machineId,
        ...(kind === 'repository' ? space.get(row.id) : {}),
        ...(kind === 'host' && isReadOnItsMachineOnly(row) ? { ownMachineOnly: true } : {}),
      });
  for (const row of used)
    if (row.kind === 'vm')
      states.push({
        kind: 'vm',
        id: row.resource_id,
        limit: 1,
        used: Number(row.units),
        reachable: true,
        machineId: null,
      });
  return states;
}

type Space = Pick<ResourceState, 'freeBytes' | 'reservedBytes'>;

/** Of each repository: free when it was last looked at, and what granted requests are expected to store by then. */
async function loadSpace(db: Kysely<CatalogTables>): Promise<Map<string, Space>> {
  const rows = await db.selectFrom('repositories').select(['repository_id', 'free_bytes']).execute();
  const granted = await db.selectFrom('resource_requests').select('wants').where('state', '=', 'granted').execute();
  const reserved = new Map<string, number>();
  for (const { wants } of granted) {
    const { repositoryId, expectedBytes = 0 } = fromJson<ResourceWants>(wants);
    if (repositoryId !== null) reserved.set(repositoryId, (reserved.get(repositoryId) ?? 0) + expectedBytes);
  }
  return new Map(
    rows.map(({ repository_id, free_bytes }) => [
      repository_id,
      { ...(free_bytes === null ? {} : { freeBytes: free_bytes }), reservedBytes: reserved.get(repository_id) ?? 0 },
    ]),
  );
}

/** Whether its workers answer; `at` is when they were last seen (only stored when reachable). */
export async function setReachable(
  db: CatalogDatabase,
  kind: Listed,
  id: string,
  reachable: boolean,
  at: Date,
): Promise<void> {
  const [table, idColumn] = places[kind];
  const change = reachable ? { reachable: 1, seen_at: at } : { reachable: 0 };
  await db
    .updateTable(table)
    .set(change)
    .where(idColumn as never, '=', id as never)
    .execute();
}

/** Drains (true) or takes up again (false) one that is not removed. Running leases go on. */
export async function setDrained(db: CatalogDatabase, kind: Listed, id: string, drained: boolean): Promise<void> {
  const [table, idColumn] = places[kind];
  await db
    .updateTable(table)
    .set({ state: drained ? 'drained' : 'active' })
    .where(idColumn as never, '=', id as never)
    .where('state', '!=', 'removed')
    .execute();
}

/** What an inspection of a host saw; `at` becomes the age of the rows. What was known of a VM it could not look at stays. */
export async function storeInventory(db: CatalogDatabase, vms: readonly VmSummary[], at: Date): Promise<void> {
  for (const each of vms) {
    const inspected = each.disks === null ? {} : { inspected_at: at, disks: toJson(each.disks) };
    const seen = { host_id: each.vm.hostId, name: each.name, power: each.power, updated_at: at, ...inspected };
    await db
      .insertInto('virtual_machines')
      .values({ vm_id: each.vm.vmId, state: 'active', ...seen })
      .onDuplicateKeyUpdate(seen)
      .execute();
  }
}

export type InventoryVm = {
  summary: VmSummary | null;
  vmId: VmId;
  hostId: string;
  name: string;
  /** ISO 8601, UTC; null: never inspected, `summary` is null too. */
  inspectedAt: string | null;
};

/** VMs known, with the last inspection's findings; of one host or all. */
export async function loadInventory(db: CatalogDatabase, ofHost?: string): Promise<InventoryVm[]> {
  let query = db.selectFrom('virtual_machines').selectAll().where('state', '!=', 'removed').orderBy('name');
  if (ofHost !== undefined) query = query.where('host_id', '=', ofHost);
  return (await query.execute()).map((row) => ({
    vmId: vmId(row.vm_id),
    hostId: row.host_id,
    name: row.name,
    inspectedAt: isoOrNull(row.inspected_at),
    summary:
      row.disks === null
        ? null
        : {
            vm: { vmId: vmId(row.vm_id), hostId: hostId(row.host_id) },
            name: row.name,
            power: (row.power ?? 'off') as VmSummary['power'],
            disks: fromJson<{ diskKey: string; sizeBytes: number }[]>(row.disks).map((disk) => ({
              diskKey: diskKey(disk.diskKey),
              sizeBytes: disk.sizeBytes,
            })),
          },
  }));
}

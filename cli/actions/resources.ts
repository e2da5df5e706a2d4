/** `tidemark host|proxy|repository list`: what the site has, and how much of it is taken. */
import { countRestorePoints } from '../../schema/catalog/restore-points.ts';
import { listResources, loadInventory, loadResourceStates, type ResourceRow } from '../../schema/catalog/resources.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import type { HostConfig, ProxyConfig, RepositoryConfig } from '../../schema/domain/configuration.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { percentOf } from '../output/statistics-report.ts';
import { type Column, formatTime, renderTable } from '../output/table.ts';
import { figuresOf } from '../repository-figures.ts';
import { printJson } from '../run-command.ts';
import type { ReadOptions } from './job.ts';

export type ResourceOptions = ReadOptions & { all?: boolean };
type Kind = 'host' | 'proxy' | 'repository';
/** `used`: slots taken now. */
type Resource<C> = Omit<ResourceRow, 'config'> & { config: C; used: number };

async function load<C>(db: CatalogDatabase, kind: Kind, all: boolean): Promise<Resource<C>[]> {
  const used = new Map((await loadResourceStates(db)).map((each) => [`${each.kind} ${each.id}`, each.used]));
  const rows = (await listResources(db, kind)).filter((row) => all || row.state !== 'removed');
  return rows.map((row) => ({ ...row, config: row.config as C, used: used.get(`${kind} ${row.id}`) ?? 0 }));
}

const head = <C>(title: string): Column<Resource<C>>[] => [
  { title, of: (row) => row.id },
  { title: 'MACHINE', of: (row) => row.machineId },
  { title: 'STATE', of: (row) => (row.reachable ? row.state : `${row.state}, silent since ${formatTime(row.seenAt)}`) },
  { title: 'SLOTS USED', of: (row) => `${row.used} of ${row.slots}`, right: true },
];

function print<T>(rows: readonly T[], columns: readonly Column<T>[], none: string): void {
  console.log(rows.length === 0 ? none : renderTable(rows, columns));
}

type InventoryVm = Awaited<ReturnType<typeof loadInventory>>[number];
const vmColumns: Column<InventoryVm>[] = [
  { title: 'VM', of: (vm) => vm.name },
  { title: 'HOST', of: (vm) => vm.hostId },
  { title: 'POWER', of: (vm) => vm.summary?.power ?? '-' },
  {
    title: 'DISKS',
    of: (vm) => vm.summary?.disks?.map((disk) => `${disk.diskKey} ${formatBytes(disk.sizeBytes)}`).join(', ') ?? '-',
  },
  { title: 'SEEN', of: (vm) => (vm.inspectedAt === null ? 'never' : formatTime(vm.inspectedAt)) },
  { title: 'ID', of: (vm) => vm.vmId },
];

export function listHosts(options: ResourceOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const hosts = await load<HostConfig>(db, 'host', options.all === true);
    const vms = await loadInventory(db);
    if (options.json) {
      printJson({ hosts, vms });
      return exitCodes.ok;
    }
    const columns = [
      ...head<HostConfig>('HOST'),
      { title: 'PROVIDER', of: (row: Resource<HostConfig>) => row.config.provider },
    ];
    print(hosts, columns, 'no hosts');
    if (vms.length > 0) console.log(`\n${renderTable(vms, vmColumns)}`);
    return exitCodes.ok;
  });
}

export function listProxies(options: ResourceOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const proxies = await load<ProxyConfig>(db, 'proxy', options.all === true);
    const columns: Column<Resource<ProxyConfig>>[] = [
      ...head<ProxyConfig>('PROXY'),
      { title: 'LANES', of: (row) => String(row.config.lanes), right: true },
      { title: 'RESTORES INTO', of: (row) => row.config.restoreFolders.join(', ') || '-' },
    ];
    if (options.json) printJson({ proxies });
    else print(proxies, columns, 'no proxies');
    return exitCodes.ok;
  });
}

/** `storedBytes`: by the last statistics, of `statisticsAt`; null when there were none yet. */
type ListedRepository = Resource<RepositoryConfig> & { restorePoints: number; storedBytes: number | null } & Pick<
    Awaited<ReturnType<typeof figuresOf>>,
    'statisticsAt' | 'space' | 'daysUntilFull' | 'alarms'
  >;

async function loadRepositories(db: CatalogDatabase, all: boolean): Promise<ListedRepository[]> {
  const counts = await countRestorePoints(db);
  const repositories: ListedRepository[] = [];
  for (const row of await load<RepositoryConfig>(db, 'repository', all)) {
    const own = counts.filter(({ repositoryId }) => repositoryId === row.id);
    const restorePoints = own.reduce((sum, { count }) => sum + count, 0);
    const { statistics, statisticsAt, space, daysUntilFull, alarms } = await figuresOf(db, row);
    const storedBytes = statistics?.storedBytes ?? null;
    repositories.push({ ...row, restorePoints, storedBytes, statisticsAt, space, daysUntilFull, alarms });
  }
  return repositories;
}

const repositoryColumns: Column<ListedRepository>[] = [
  ...head<RepositoryConfig>('REPOSITORY'),
  { title: 'RESTORE POINTS', of: (row) => String(row.restorePoints), right: true },
  { title: 'STORED', of: ({ storedBytes: bytes }) => (bytes === null ? '-' : formatBytes(bytes)), right: true },
  {
    title: 'FREE',
    of: ({ space }) =>
      space === null ? '-' : `${formatBytes(space.freeBytes)} (${percentOf(space.freeBytes, space.totalBytes)})`,
    right: true,
  },
  { title: 'FULL IN', of: ({ daysUntilFull: days }) => (days === null ? '-' : `${days} days`), right: true },
  { title: 'FOLDER', of: (row) => row.config.folder },
];

/** Those that fill up are warned of, behind the table. */
export function listRepositories(options: ResourceOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const repositories = await loadRepositories(db, options.all === true);
    if (options.json) printJson({ repositories });
    else print(repositories, repositoryColumns, 'no repositories');
    for (const alarm of repositories.flatMap(({ alarms }) => alarms)) console.error(`warning: ${alarm}`);
    return exitCodes.ok;
  });
}

/** Applying a site: the catalog's machines, resources and jobs become what the site says; nothing is ever deleted. */
import { sql } from 'kysely';
import type { Kysely, Transaction } from 'kysely';
import type { JobConfig, MachineConfig, SiteChange, SiteConfig } from '../domain/configuration.ts';
import { machineId, siteId } from '../domain/ids.ts';
import { diffSites } from '../domain/site-changes.ts';
import type { CatalogDatabase } from './connection.ts';
import { noteAbsences } from './absent-vms.ts';
import { fromJson, toJson } from './json.ts';
import type { CatalogTables, ResourceRowState } from './tables.ts';

/** What a machine has beside its hosts, proxies and repositories. */
type MachineRules = Pick<MachineConfig, 'networks' | 'workers' | 'security' | 'temporal' | 'enrolment'>;
type Write = Transaction<CatalogTables>;

/**
 * Stores `site` in one transaction and returns what changed. What the site no longer has is marked removed (its limit
 * is then 0) and keeps its history; a drained resource that is still in the site stays drained.
 */
export async function applySite(db: CatalogDatabase, site: SiteConfig, at: Date = new Date()): Promise<SiteChange[]> {
  return db.transaction().execute(async (transaction) => {
    const before = await loadSite(transaction);
    await markRemoved(transaction, site, at);
    for (const machine of site.machines) await storeMachine(transaction, machine, at);
    for (const job of site.jobs) await storeJob(transaction, job, at);
    return diffSites(before, site);
  });
}

/** What was last applied, without what was removed; null before the first time. */
export async function loadSite(db: Kysely<CatalogTables>): Promise<SiteConfig | null> {
  const machines = await db
    .selectFrom('machines')
    .selectAll()
    .where('state', '!=', 'removed')
    .orderBy('machine_id')
    .execute();
  const first = machines[0];
  if (!first) return null;
  const [hosts, proxies, repositories] = [
    await db.selectFrom('hosts').selectAll().where('state', '!=', 'removed').orderBy('host_id').execute(),
    await db.selectFrom('proxies').selectAll().where('state', '!=', 'removed').orderBy('proxy_id').execute(),
    await db.selectFrom('repositories').selectAll().where('state', '!=', 'removed').orderBy('repository_id').execute(),
  ];
  const jobs = await db.selectFrom('jobs').selectAll().where('state', '!=', 'removed').orderBy('job_id').execute();
  const of = <T>(rows: { machine_id: string; config: string }[], machine: string): T[] =>
    rows.filter((row) => row.machine_id === machine).map((row) => fromJson<T>(row.config));
  return {
    site: siteId(first.site_id),
    machines: machines.map((machine) => ({
      site: siteId(machine.site_id),
      machineId: machineId(machine.machine_id),
      hosts: of(hosts, machine.machine_id),
      proxies: of(proxies, machine.machine_id),
      repositories: of(repositories, machine.machine_id),
      ...(machine.config === null ? {} : fromJson<MachineRules>(machine.config)),
    })),
    jobs: jobs.map((job) => fromJson<JobConfig>(job.config)),
  };
}

async function markRemoved(db: Write, site: SiteConfig, at: Date): Promise<void> {
  const gone = { state: 'removed' as const, updated_at: at };
  // An empty list would be `in ()`, which MySQL refuses: no id is ever empty.
  const keep = (ids: readonly string[]): string[] => ['', ...ids];
  const all = <T>(pick: (machine: MachineConfig) => T[]): T[] => site.machines.flatMap(pick);
  const machines = keep(site.machines.map((machine) => machine.machineId));
  const hosts = keep(all((machine) => machine.hosts.map((host) => host.hostId)));
  const vms = keep(all((machine) => machine.hosts.flatMap((host) => host.vms.map((vm) => vm.vmId))));
  const proxies = keep(all((machine) => machine.proxies.map((proxy) => proxy.proxyId)));
  const repositories = keep(all((machine) => machine.repositories.map((each) => each.repositoryId)));
  const jobs = keep(site.jobs.map((job) => job.jobId));
  await db.updateTable('machines').set(gone).where('machine_id', 'not in', machines).execute();
  await db.updateTable('hosts').set(gone).where('host_id', 'not in', hosts).execute();
  await db.updateTable('virtual_machines').set(gone).where('vm_id', 'not in', vms).execute();
  await db.updateTable('proxies').set(gone).where('proxy_id', 'not in', proxies).execute();
  await db.updateTable('repositories').set(gone).where('repository_id', 'not in', repositories).execute();
  await db.updateTable('jobs').set(gone).where('job_id', 'not in', jobs).execute();
}

/** A person's "drained" outlives an apply. */
const upsertState = sql<ResourceRowState>`if(state = 'drained', 'drained', 'active')`;

async function storeMachine(db: Write, machine: MachineConfig, at: Date): Promise<void> {
  const { networks, workers, security, temporal, enrolment } = machine;
  const rules = { networks, workers, security, temporal, enrolment };
  const config = toJson(rules satisfies { [key in keyof MachineRules]-?: unknown });
  const row = { site_id: machine.site, state: 'active' as const, config, updated_at: at };
  await db
    .insertInto('machines')
    .values({ machine_id: machine.machineId, ...row })
    .onDuplicateKeyUpdate(row)
    .execute();
  const columns = (config: { slots: number }) => ({
    machine_id: machine.machineId,
    slots: config.slots,
    config: toJson(config),
    updated_at: at,
  });
  for (const host of machine.hosts) {
    const set = { ...columns(host), provider: host.provider };
    await db
      .insertInto('hosts')
      .values({ host_id: host.hostId, state: 'active', ...set })
      .onDuplicateKeyUpdate({ ...set, state: upsertState })
      .execute();
    for (const vm of host.vms) await storeVm(db, host.hostId, vm, at);
  }
  for (const proxy of machine.proxies)
    await db
      .insertInto('proxies')
      .values({ proxy_id: proxy.proxyId, state: 'active', ...columns(proxy) })
      .onDuplicateKeyUpdate({ ...columns(proxy), state: upsertState })
      .execute();
  for (const each of machine.repositories)
    await db
      .insertInto('repositories')
      .values({ repository_id: each.repositoryId, state: 'active', ...columns(each) })
      .onDuplicateKeyUpdate({ ...columns(each), state: upsertState })
      .execute();
}

/** Leaves power, disks and age as the last inspection saw them. */
async function storeVm(db: Write, host: string, vm: { vmId: string; name: string }, at: Date): Promise<void> {
  const row = { host_id: host, name: vm.name, state: 'active' as const, updated_at: at };
  await db
    .insertInto('virtual_machines')
    .values({ vm_id: vm.vmId, ...row })
    .onDuplicateKeyUpdate(row)
    .execute();
}

async function storeJob(db: Write, job: JobConfig, at: Date): Promise<void> {
  const row = { repository_id: job.repositoryId, state: 'active' as const, config: toJson(job), updated_at: at };
  await db
    .insertInto('jobs')
    .values({ job_id: job.jobId, ...row })
    .onDuplicateKeyUpdate(row)
    .execute();
  await noteAbsences(
    db,
    job.jobId,
    job.vms.map((vm) => vm.vmId),
    at,
  );
  await db.deleteFrom('job_vms').where('job_id', '=', job.jobId).execute();
  if (job.vms.length === 0) return;
  await db
    .insertInto('job_vms')
    .values(
      job.vms.map((vm, position) => ({
        job_id: job.jobId,
        vm_id: vm.vmId,
        position,
        host_id: vm.hostId,
        name: vm.name,
        exclude_disks: toJson(vm.excludeDisks),
      })),
    )
    .execute();
}

/** Since when a job has not had a VM any more: what the purge of deleted VMs counts from. */
import { sql, type Kysely } from 'kysely';
import type { JobConfig } from '../domain/configuration.ts';
import { jobId, lineageId, vmId } from '../domain/ids.ts';
import type { LineagePolicy } from '../domain/maintenance-sessions.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson } from './json.ts';
import type { CatalogTables } from './tables.ts';

/** Before the job's VMs are stored anew: those it had and has no more are gone from now on, those it has again are not. */
export async function noteAbsences(
  db: Kysely<CatalogTables>,
  job: string,
  vms: readonly string[],
  at: Date,
): Promise<void> {
  const had = await db.selectFrom('job_vms').select('vm_id').where('job_id', '=', job).execute();
  await noteGone(
    db,
    job,
    had.map((row) => row.vm_id).filter((vm) => !vms.includes(vm)),
    at,
  );
  if (vms.length > 0) await db.deleteFrom('absent_vms').where('job_id', '=', job).where('vm_id', 'in', vms).execute();
}

/** Of those known as gone already nothing changes. */
async function noteGone(db: Kysely<CatalogTables>, job: string, vms: readonly string[], at: Date): Promise<void> {
  if (vms.length === 0) return;
  await db
    .insertInto('absent_vms')
    .values(vms.map((vm_id) => ({ job_id: job, vm_id, since: at })))
    .onDuplicateKeyUpdate({ since: sql`since` })
    .execute();
}

/** How many restore points the catalog knows of it. */
export type CountedPolicy = LineagePolicy & { count: number };

/**
 * Every lineage that has restore points in the repository, by job and VM, with its job's retention; a job that is not in
 * the site has none. Of a VM its job lacks and of which nobody knows since when (a catalog that was rebuilt): since `at`.
 */
export async function loadLineagePolicies(db: CatalogDatabase, repository: string, at: Date): Promise<CountedPolicy[]> {
  const rows = await db
    .selectFrom('restore_points')
    .select(['lineage', 'job_id', 'vm_id'])
    .select((eb) => [eb.fn.max('vm_name').as('vm_name'), eb.fn.countAll<number | string>().as('count')])
    .where('repository_id', '=', repository)
    .where('removed_at', 'is', null)
    .groupBy(['lineage', 'job_id', 'vm_id'])
    .orderBy('job_id')
    .orderBy('vm_id')
    .execute();
  const jobs = await jobsOfSite(db);
  const gone = rows.filter((row) => jobs.get(row.job_id)?.vms.every((vm) => vm.vmId !== row.vm_id));
  for (const row of gone) await noteGone(db, row.job_id, [row.vm_id], at);
  const absences = await db.selectFrom('absent_vms').selectAll().execute();
  const since = new Map(absences.map((row) => [`${row.job_id} ${row.vm_id}`, row.since.toISOString()]));
  return rows.map((row) => ({
    lineage: lineageId(row.lineage),
    jobId: jobId(row.job_id),
    vmId: vmId(row.vm_id),
    vmName: row.vm_name,
    count: Number(row.count),
    policy: jobs.get(row.job_id)?.retention ?? null,
    vmGoneSince: gone.includes(row) ? since.get(`${row.job_id} ${row.vm_id}`)! : null,
  }));
}

async function jobsOfSite(db: CatalogDatabase): Promise<Map<string, JobConfig>> {
  const rows = await db.selectFrom('jobs').select(['job_id', 'config']).where('state', '!=', 'removed').execute();
  return new Map(rows.map((row) => [row.job_id, fromJson<JobConfig>(row.config)]));
}

/** Backup jobs: standing orders as the last applied site has them. */
import type { JobConfig } from '../domain/configuration.ts';
import { TidemarkError } from '../domain/errors.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson } from './json.ts';

/** JOB_NOT_FOUND for one that never was or was removed from the site. */
export async function loadJob(db: CatalogDatabase, jobId: string): Promise<JobConfig> {
  const row = await db.selectFrom('jobs').select(['config', 'state']).where('job_id', '=', jobId).executeTakeFirst();
  if (!row) throw new TidemarkError('JOB_NOT_FOUND', `there is no job ${jobId}`, { jobId });
  if (row.state === 'removed')
    throw new TidemarkError('JOB_NOT_FOUND', `job ${jobId} was removed from the site`, { jobId });
  return fromJson<JobConfig>(row.config);
}

export type JobSummary = {
  job: JobConfig;
  lastSession: { sessionId: string; state: string; result: string; startedAt: string } | null;
};

/** Jobs of the site with their newest session, by name. */
export async function listJobs(db: CatalogDatabase): Promise<JobSummary[]> {
  const jobs = await db
    .selectFrom('jobs')
    .select(['job_id', 'config'])
    .where('state', '!=', 'removed')
    .orderBy('job_id')
    .execute();
  const summaries: JobSummary[] = [];
  for (const row of jobs) {
    const last = await db
      .selectFrom('sessions')
      .select(['session_id', 'state', 'result', 'started_at'])
      .where('job_id', '=', row.job_id)
      .orderBy('started_at', 'desc')
      .limit(1)
      .executeTakeFirst();
    summaries.push({
      job: fromJson<JobConfig>(row.config),
      lastSession: last
        ? {
            sessionId: last.session_id,
            state: last.state,
            result: last.result,
            startedAt: last.started_at.toISOString(),
          }
        : null,
    });
  }
  return summaries;
}

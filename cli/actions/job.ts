/** `tidemark job`: lists, shows and runs backup jobs. */
import type { Client } from '@temporalio/client';
import { listJobs, type JobSummary } from '../../schema/catalog/jobs.ts';
import { listSessions } from '../../schema/catalog/sessions.ts';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import type { GuestScript, JobConfig } from '../../schema/domain/configuration.ts';
import type { RetentionPolicy } from '../../schema/domain/retention.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { findJob } from '../find-names.ts';
import { followSession, showDetached } from '../follow-session.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { formatDuration, formatTime, renderTable } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import { startBackup } from '../start-session.ts';
import { describeWorkflow, withTemporal } from '../temporal-access.ts';

export type ReadOptions = { state?: string; json?: boolean };

const lastOf = ({ lastSession }: JobSummary): string =>
  lastSession === null ? '-' : lastSession.result === 'None' ? lastSession.state : lastSession.result;

export function list(options: ReadOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const jobs = await listJobs(db);
    const columns = [
      { title: 'JOB', of: ({ job }: JobSummary) => job.jobId },
      { title: 'VMS', of: ({ job }: JobSummary) => String(job.vms.length), right: true },
      { title: 'REPOSITORY', of: ({ job }: JobSummary) => job.repositoryId },
      { title: 'LAST', of: lastOf },
      { title: 'STARTED', of: ({ lastSession }: JobSummary) => formatTime(lastSession?.startedAt) },
      { title: 'SESSION', of: ({ lastSession }: JobSummary) => lastSession?.sessionId ?? '-' },
    ];
    if (options.json) printJson({ jobs });
    else
      console.log(jobs.length === 0 ? 'no jobs; `tidemark apply -f site.yaml` adds some' : renderTable(jobs, columns));
    return exitCodes.ok;
  });
}

const scriptText = (script: GuestScript | null): string =>
  script === null ? '-' : [script.path, ...script.args, `(at most ${formatDuration(script.timeoutMs)})`].join(' ');

function retentionText(retention: RetentionPolicy | undefined): string {
  if (retention === undefined) return 'everything, for ever';
  const { count, days, weekly, monthly, yearly, minimum, deletedVmDays, timeZone } = retention;
  const rules = [
    count === null ? null : `the newest ${count}`,
    days === null ? null : `${days} days (${timeZone})`,
    weekly === null ? null : `${weekly.keep} weekly (${weekly.weekday})`,
    monthly === null ? null : `${monthly.keep} monthly`,
    yearly === null ? null : `${yearly.keep} yearly (${yearly.month})`,
    `at least ${minimum} good ones`,
    deletedVmDays === null ? null : `of a VM that is gone, ${deletedVmDays} days`,
  ];
  return rules.filter((rule) => rule !== null).join('; ');
}

function showJob(job: JobConfig): void {
  console.log(`job ${job.jobId}`);
  const lines = [
    ['repository', job.repositoryId],
    ['proxies', job.proxies.length === 0 ? 'any' : job.proxies.join(', ')],
    ['consistency', job.consistency],
    ['compression', job.compression],
    ['block size', formatBytes(job.blockSize)],
    ['VMs at once', String(job.maxParallelVms)],
    ['waits for hosts', `at most ${formatDuration(job.hostWaitMs)}`],
    ['before freeze', scriptText(job.scripts.preFreeze)],
    ['after thaw', scriptText(job.scripts.postThaw)],
    ['on success', scriptText(job.scripts.success)],
    ['keeps', retentionText(job.retention)],
  ];
  for (const [name, value] of lines) console.log(`  ${`${name}:`.padEnd(17)} ${value}`);
  const columns = [
    { title: 'VM', of: (vm: JobConfig['vms'][number]) => vm.name },
    { title: 'HOST', of: (vm: JobConfig['vms'][number]) => vm.hostId },
    { title: 'LEFT OUT', of: (vm: JobConfig['vms'][number]) => vm.excludeDisks.join(', ') || '-' },
    { title: 'ID', of: (vm: JobConfig['vms'][number]) => vm.vmId },
  ];
  console.log(`\n${renderTable(job.vms, columns)}`);
}

export function show(name: string, options: ReadOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const job = await findJob(db, name);
    const sessions = await listSessions(db, { jobId: job.jobId, limit: 10 });
    if (options.json) printJson({ job, sessions });
    else {
      showJob(job);
      const columns = [
        { title: 'SESSION', of: (each: (typeof sessions)[number]) => each.sessionId },
        { title: 'STATE', of: (each: (typeof sessions)[number]) => each.state },
        { title: 'RESULT', of: (each: (typeof sessions)[number]) => each.result },
        { title: 'STARTED', of: (each: (typeof sessions)[number]) => formatTime(each.startedAt) },
      ];
      console.log(sessions.length === 0 ? '\nno session yet' : `\n${renderTable(sessions, columns)}`);
    }
    return exitCodes.ok;
  });
}

/** The session's own first step decides; this one tells a person before anything is started. */
async function assertNotRunning(db: CatalogDatabase, client: Client, job: JobConfig): Promise<void> {
  for (const session of await listSessions(db, { jobId: job.jobId, kind: 'backup', open: true, limit: 5 })) {
    const picture = await describeWorkflow(client, session.workflowId);
    if (picture?.status !== 'RUNNING') continue;
    const { sessionId } = session;
    const message = `job ${job.jobId} runs already: session ${sessionId}, since ${formatTime(session.startedAt)}`;
    throw new TidemarkError('ALREADY_RUNNING', message, { jobId: job.jobId, sessionId });
  }
}

export type RunOptions = ReadOptions & { detach?: boolean };

/** JOB_NOT_FOUND, ALREADY_RUNNING before anything is started. The exit code is by the session's result. */
export function run(name: string, options: RunOptions): Promise<number> {
  return withCatalog(options.state, async (db, stack) => {
    const job = await findJob(db, name);
    return withTemporal(stack, async (client) => {
      await assertNotRunning(db, client, job);
      const started = await startBackup(client, job);
      const target = { ...started, kind: 'backup' as const, name: '' };
      if (!options.detach)
        return followSession(target, { db, client, stack, state: options.state }, options.json === true);
      showDetached(target, stack, options.json === true);
      return exitCodes.ok;
    });
  });
}

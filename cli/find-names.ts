/** From what a person types to the session or restore point meant: whole ids, their beginnings, "latest". */
import type { CatalogDatabase } from '../schema/catalog/connection.ts';
import { listJobs, loadJob } from '../schema/catalog/jobs.ts';
import { listKnownNames, type NamedKind } from '../schema/catalog/known-names.ts';
import { listResources } from '../schema/catalog/resources.ts';
import { listRestorePoints, type RestorePointSummary } from '../schema/catalog/restore-points.ts';
import { listSessions, type Session } from '../schema/catalog/sessions.ts';
import type { JobConfig, RepositoryConfig } from '../schema/domain/configuration.ts';
import { errorCodeOf, TidemarkError } from '../schema/domain/errors.ts';
import { takenMs } from '../schema/domain/taken-time.ts';
import { didYouMean } from '../engines/site/nearest-name.ts';

const LATEST = '@latest';
const SHORT_ID = 12;
/** The first characters of a restore point's id: enough to tell it from others. */
export const shortId = (id: string): string => id.slice(0, SHORT_ID);

function onlyOne<T>(kind: string, text: string, found: readonly T[], idOf: (thing: T) => string): T {
  const [first, second] = found;
  if (first !== undefined && (second === undefined || idOf(first) === text)) return first;
  if (first === undefined) throw new TidemarkError('NOT_FOUND', `there is no ${kind} ${text}`, { kind, id: text });
  const ids = found.map(idOf);
  throw new TidemarkError('BAD_REQUEST', `several ${kind}s begin with ${text}: ${ids.join(', ')}`, { kind, ids });
}

/** By id, its beginning, "latest", or "<job>@latest". NOT_FOUND; BAD_REQUEST when several begin so. */
export async function findSession(db: CatalogDatabase, text: string): Promise<Session> {
  const isLatest = text === 'latest' || text.endsWith(LATEST);
  const job = text.endsWith(LATEST) ? text.slice(0, -LATEST.length) : '';
  const filter = isLatest ? (job === '' ? {} : { jobId: job }) : { idPrefix: text };
  const found = await listSessions(db, { ...filter, limit: isLatest ? 1 : 10 });
  // Newest first; the whole id wins over longer ones that begin with it.
  found.sort((a, b) => a.sessionId.length - b.sessionId.length);
  return onlyOne('session', text, found, (session) => session.sessionId);
}

const isIdPrefix = (text: string): boolean => /^[0-9a-f]{4,32}$/.test(text);

/** By id, its beginning (at least 4 characters), or "<vm>@latest". RESTORE_POINT_NOT_FOUND; BAD_REQUEST when several fit. */
export async function findRestorePoint(db: CatalogDatabase, text: string): Promise<RestorePointSummary> {
  if (text.endsWith(LATEST)) return findLatest(db, text.slice(0, -LATEST.length));
  const found = isIdPrefix(text) ? await listRestorePoints(db, { idPrefix: text, limit: 10 }) : [];
  if (found.length > 0) return onlyOne('restore point', text, found, (point) => point.restorePointId);
  const message = isIdPrefix(text)
    ? `there is no restore point ${text}`
    : `expected a restore point's id, at least its first 4 characters, or <vm>@latest, found ${JSON.stringify(text)}`;
  throw new TidemarkError('RESTORE_POINT_NOT_FOUND', message, { restorePoint: text });
}

/** The newest that no audit has found suspect and no check damaged. */
async function findLatest(db: CatalogDatabase, vm: string): Promise<RestorePointSummary> {
  const named = await listRestorePoints(db, { vmName: vm });
  const found = named.length > 0 ? named : await listRestorePoints(db, { vmId: vm });
  const newest = newestOf(found.filter((point) => !point.suspect && !point.damaged)) ?? newestOf(found);
  if (newest === undefined) {
    const names = [...new Set((await listRestorePoints(db)).map((point) => point.vmName))];
    const message = `VM ${vm} has no restore point${didYouMean(vm, names)}`;
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', message, { vm });
  }
  const ids = [...new Set(found.map((point) => point.vmId))];
  if (ids.length === 1) return newest;
  throw new TidemarkError('BAD_REQUEST', `several VMs are called ${vm}; write <id>@latest: ${ids.join(', ')}`, { ids });
}

/** Of those each repository has sealed last, first of all in the list, the one taken last. */
function newestOf(points: readonly RestorePointSummary[]): RestorePointSummary | undefined {
  const lasts = new Map<string, RestorePointSummary>();
  for (const point of points) if (!lasts.has(point.repositoryId)) lasts.set(point.repositoryId, point);
  return [...lasts.values()].toSorted((a, b) => takenMs(b) - takenMs(a))[0];
}

/** JOB_NOT_FOUND with the nearest name. */
export async function findJob(db: CatalogDatabase, name: string): Promise<JobConfig> {
  try {
    return await loadJob(db, name);
  } catch (error) {
    if (!(error instanceof TidemarkError) || errorCodeOf(error) !== 'JOB_NOT_FOUND') throw error;
    const names = (await listJobs(db)).map(({ job }) => job.jobId);
    throw new TidemarkError('JOB_NOT_FOUND', `${error.message}${didYouMean(name, names)}`, {
      jobId: name,
      jobs: names,
    });
  }
}

/** A list that is empty for want of such a thing, not of rows: NOT_FOUND with the nearest name. What is undefined was not named. */
export async function requireKnown(
  db: CatalogDatabase,
  named: { [kind in NamedKind]?: string | undefined },
): Promise<void> {
  for (const kind of ['VM', 'job', 'repository'] as const) {
    const name = named[kind];
    if (name === undefined) continue;
    const names = await listKnownNames(db, kind);
    if (names.includes(name)) continue;
    const message = `there is no ${kind} ${name}${didYouMean(name, names)}`;
    throw new TidemarkError('NOT_FOUND', message, { kind, name });
  }
}

/** RESOURCE_REMOVED, with the folder it had: nobody serves it, and whoever writes it back needs to know where it lies. */
export async function requireRepository(db: CatalogDatabase, repository: string): Promise<void> {
  const row = (await listResources(db, 'repository')).find(({ id }) => id === repository);
  if (row && row.state !== 'removed') return;
  const folder = row ? (row.config as RepositoryConfig).folder : null;
  const where = row ? `: it had the folder ${folder} on machine ${row.machineId}` : '';
  const message = `repository ${repository} is not in the site${where}`;
  throw new TidemarkError('RESOURCE_REMOVED', message, { repository, folder });
}

/** `tidemark restore-point keep|unkeep|hold|release|remove|undelete`: what a person says of one restore point. */
import { ApplicationFailure, type Client, WorkflowFailedError } from '@temporalio/client';
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listRestorePoints, type RestorePointSummary } from '../../schema/catalog/restore-points.ts';
import { isErrorCode, messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { repositoryId, restorePointId } from '../../schema/domain/ids.ts';
import type { ChangedRestorePoint, RestorePointChange } from '../../schema/domain/maintenance-sessions.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { findRestorePoint, requireRepository, shortId } from '../find-names.ts';
import { formatTime } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import { startChange } from '../start-session.ts';
import { isAway, withTemporal } from '../temporal-access.ts';
import type { ReadOptions } from './job.ts';

const MAX_REASON = 1024;
/** The repository's machine is waited for 30 s, three times; a person for little longer. */
const ANSWER_LIMIT_MS = 150_000;

export type RemoveOptions = ReadOptions & { last?: boolean };

const flags = (name: string, options: ReadOptions, change: { keep?: boolean; hold?: string | null }): Promise<number> =>
  changeNamed(name, options, { kind: 'flags', ...change }, findRestorePoint);

export const keep = (name: string, options: ReadOptions): Promise<number> => flags(name, options, { keep: true });
export const unkeep = (name: string, options: ReadOptions): Promise<number> => flags(name, options, { keep: false });
export const release = (name: string, options: ReadOptions): Promise<number> => flags(name, options, { hold: null });

export async function hold(name: string, reason: string, options: ReadOptions): Promise<number> {
  if (reason.trim() === '' || reason.length > MAX_REASON)
    throw new TidemarkError('BAD_REQUEST', `a reason to hold has 1 to ${MAX_REASON} characters`, { field: 'reason' });
  return await flags(name, options, { hold: reason });
}

export const remove = (name: string, options: RemoveOptions): Promise<number> =>
  changeNamed(name, options, { kind: 'remove', last: options.last === true }, findRestorePoint);

export const undelete = (name: string, options: ReadOptions): Promise<number> =>
  changeNamed(name, options, { kind: 'undelete' }, findRemoved);

/** By id or its beginning, of those in the trash. RESTORE_POINT_NOT_FOUND; BAD_REQUEST when several fit. */
async function findRemoved(db: CatalogDatabase, text: string): Promise<RestorePointSummary> {
  const found = /^[0-9a-f]{4,32}$/.test(text)
    ? await listRestorePoints(db, { removed: true, idPrefix: text, limit: 10 })
    : [];
  const [first, second] = found;
  if (first && !second) return first;
  if (first) {
    const ids = found.map((point) => point.restorePointId);
    throw new TidemarkError('BAD_REQUEST', `several restore points begin with ${text}: ${ids.join(', ')}`, { ids });
  }
  const message = `there is no restore point ${text} in the trash; \`tidemark restore-point list --removed\` shows it`;
  throw new TidemarkError('RESTORE_POINT_NOT_FOUND', message, { restorePoint: text });
}

function changeNamed(
  name: string,
  options: ReadOptions,
  change: RestorePointChange,
  find: (db: CatalogDatabase, text: string) => Promise<RestorePointSummary>,
): Promise<number> {
  return withCatalog(options.state, async (db, stack) => {
    const point = await find(db, name);
    await requireRepository(db, point.repositoryId);
    return await withTemporal(stack, async (client) => {
      const id = restorePointId(point.restorePointId);
      const changed = await outcomeOf(client, repositoryId(point.repositoryId), id, change);
      if (options.json) printJson(shown(changed, point));
      else console.log(said(changed, point));
      return exitCodes.ok;
    });
  });
}

async function outcomeOf(
  client: Client,
  repository: ReturnType<typeof repositoryId>,
  id: ReturnType<typeof restorePointId>,
  change: RestorePointChange,
): Promise<ChangedRestorePoint> {
  const handle = await startChange(client, { version: 1, repositoryId: repository, restorePointId: id, change });
  try {
    return await client.withDeadline(Date.now() + ANSWER_LIMIT_MS, () => handle.result());
  } catch (error) {
    if (error instanceof WorkflowFailedError) throw failureOf(error);
    if (!isAway(error)) throw error;
    const message = `restore point ${id}: no answer for ${ANSWER_LIMIT_MS / 1000} s; what was asked goes on as ${handle.workflowId}`;
    throw new TidemarkError('UNREACHABLE', message, { workflowId: handle.workflowId }, error);
  }
}

/** The error of the repository, with its own code. */
function failureOf(error: WorkflowFailedError): unknown {
  for (let at: unknown = error; at instanceof Error; at = at.cause)
    if (at instanceof ApplicationFailure && at.type && isErrorCode(at.type))
      return new TidemarkError(at.type, messageOf(at), {}, error);
  return error;
}

function shown(changed: ChangedRestorePoint, { vmName, repositoryId: repository }: RestorePointSummary) {
  const { restorePointId: id, removed } = changed;
  const rest = changed.removed ? { trashedUntil: changed.trashedUntil } : { flags: changed.flags, mark: changed.mark };
  return { restorePointId: id, repository, vmName, removed, ...rest };
}

function said(changed: ChangedRestorePoint, { vmName }: RestorePointSummary): string {
  const what = `restore point ${shortId(changed.restorePointId)} of VM ${vmName}`;
  if (changed.removed) {
    const until = changed.trashedUntil === null ? '' : `, at least until ${formatTime(changed.trashedUntil)}`;
    return `${what} is in the trash; \`restore-point undelete\` brings it back${until}`;
  }
  const { keep: isKept, hold: reason, lockedUntil } = changed.flags;
  const words = [
    ...(isKept ? ['is kept'] : []),
    ...(reason === null ? [] : [`is held: ${reason}`]),
    ...(lockedUntil === null ? [] : [`is locked until ${formatTime(lockedUntil)}`]),
  ];
  return `${what} ${words.length === 0 ? 'stays as long as retention says' : words.join(', ')}`;
}

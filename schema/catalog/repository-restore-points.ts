/** What a repository says of its restore points, in the catalog's rows: the repository is the truth (invariant 9). */
import { sql } from 'kysely';
import { type RepositoryId, type RestorePointId, restorePointId } from '../domain/ids.ts';
import type { RestorePointFlags } from '../domain/maintenance.ts';
import {
  type GoneRestorePoint,
  noFlags,
  type RemovedSign,
  type RestorePointPage,
  type RestorePointSign,
  type SealedRestorePoint,
  stateOf,
  type TrashedRestorePoint,
} from '../domain/maintenance-sessions.ts';
import type { RestorePointState } from '../domain/retention.ts';
import type { CatalogDatabase } from './connection.ts';
import { isLate, notLate } from './late-answers.ts';
import { recordRestorePoint } from './restore-points.ts';

const MAX_REASON = 1024;
const shortened = (text: string | null): string | null => text?.slice(0, MAX_REASON) ?? null;

type Said = { state: RestorePointState; why: string | null; flags: RestorePointFlags };
const columnsOf = ({ state, why, flags }: Said) => ({
  suspect: Number(state === 'suspect'),
  damaged: Number(state === 'damaged'),
  mark_reason: shortened(why),
  keep_always: Number(flags.keep),
  hold_reason: shortened(flags.hold),
  locked_until: flags.lockedUntil === null ? null : new Date(flags.lockedUntil),
});
type SaidColumns = ReturnType<typeof columnsOf>;

const saidOf = (sign: RestorePointSign): SaidColumns => columnsOf({ ...sign, flags: sign.flags ?? noFlags });
const numbers = ['suspect', 'damaged', 'keep_always', 'locked_until'] as const;
const differs = (row: SaidColumns, said: SaidColumns): boolean =>
  numbers.some((name) => Number(row[name]) !== Number(said[name])) ||
  row.mark_reason !== said.mark_reason ||
  row.hold_reason !== said.hold_reason;

export type PageStored = {
  /** Of these the catalog lacks the manifest, or has another. */
  missing: RestorePointId[];
  /** In the trash of the repository. */
  trashed: number;
  changed: number;
  removed: number;
  /** The first of those that are counted as removed; absent: there is none. */
  gone?: GoneRestorePoint[];
};
const MOST_NAMED = 5;

type Row = Awaited<ReturnType<typeof rowsIn>>[number];

/**
 * Rows in the page's span of ids take the flags and marks of the page, and whether they lie in the trash; those that are
 * not in it are gone, unless they were sealed, or told of, after it was made.
 */
export async function storePage(
  db: CatalogDatabase,
  repository: RepositoryId,
  page: RestorePointPage,
): Promise<PageStored> {
  const asOf = new Date(page.asOf);
  const known = new Map((await rowsIn(db, repository, page)).map((row) => [row.restore_point_id, row]));
  const stored: PageStored = { missing: [], trashed: page.trashed.length, changed: 0, removed: 0 };
  for (const sign of page.signs) {
    const row = known.get(sign.restorePointId);
    if (!row || row.manifest_digest !== sign.manifestDigest || row.removed_at !== null)
      stored.missing.push(sign.restorePointId);
    else if (differs(row, saidOf(sign))) {
      await setSaid(db, sign.restorePointId, saidOf(sign), asOf);
      stored.changed += 1;
    }
  }
  for (const { restorePointId, trashedUntil } of page.trashed) {
    const row = known.get(restorePointId);
    if (!row) stored.missing.push(restorePointId);
    else if (row.removed_at === null || Number(row.trashed_until) !== Number(dateOrNull(trashedUntil))) {
      await storeRemoved(db, [{ restorePointId, trashedUntil, asOf: page.asOf }]);
      if (row.removed_at === null) stored.changed += 1;
    }
  }
  const told = [...page.signs, ...page.trashed].map(({ restorePointId }) => restorePointId);
  const missing = new Set(stored.missing);
  await noteSaid(
    db,
    told.filter((id) => !missing.has(id)),
    asOf,
  );
  for (const id of told) known.delete(id);
  const gone = await dropGone(db, [...known.values()], asOf);
  stored.removed = gone.length;
  return gone.length === 0 ? stored : { ...stored, gone: gone.slice(0, MOST_NAMED).map(named) };
}

/** They are as their rows are: what was said before that comes too late. */
async function noteSaid(db: CatalogDatabase, ids: readonly RestorePointId[], asOf: Date): Promise<void> {
  if (ids.length === 0) return;
  await db
    .updateTable('restore_points')
    .set({ said_at: asOf })
    .where('restore_point_id', 'in', ids)
    .where(notLate('said_at', asOf))
    .execute();
}

const named = ({ restore_point_id, vm_name }: Row): GoneRestorePoint => ({
  restorePointId: restorePointId(restore_point_id),
  vmName: vm_name,
});

/** Those of them that were in no trash, and are in the catalog no longer. */
async function dropGone(db: CatalogDatabase, rows: readonly Row[], asOf: Date): Promise<Row[]> {
  // What was told of was sealed by then, whatever date a clock set wrong has given its seal.
  const isKnown = ({ said_at, sealed_at }: Row): boolean => said_at !== null || sealed_at <= asOf;
  const gone = rows.filter((row) => isKnown(row) && !isLate(row.said_at, asOf));
  const dropped: Row[] = [];
  for (const row of gone) {
    const { numDeletedRows } = await db
      .deleteFrom('restore_points')
      .where('restore_point_id', '=', row.restore_point_id)
      .where(notLate('said_at', asOf))
      .executeTakeFirst();
    if (numDeletedRows > 0n && row.removed_at === null) dropped.push(row);
  }
  return dropped;
}

async function rowsIn(db: CatalogDatabase, repository: RepositoryId, { after, upTo }: RestorePointPage) {
  let query = db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'manifest_digest', 'sealed_at', 'removed_at', 'trashed_until', 'said_at', 'vm_name'])
    .select(['suspect', 'damaged', 'mark_reason', 'keep_always', 'hold_reason', 'locked_until'])
    .where('repository_id', '=', repository);
  if (after !== null) query = query.where('restore_point_id', '>', after);
  if (upTo !== null) query = query.where('restore_point_id', '<=', upTo);
  return await query.execute();
}

/** Rows of restore points that the catalog has take these flags and marks. */
export async function storeSigns(db: CatalogDatabase, signs: readonly RestorePointSign[]): Promise<void> {
  for (const sign of signs)
    await db
      .updateTable('restore_points')
      .set(saidOf(sign))
      .where('restore_point_id', '=', sign.restorePointId)
      .execute();
}

type Change = Partial<SaidColumns> & { removed_at?: Date | null; trashed_until?: Date | null };
const dateOrNull = (text: string | null): Date | null => (text === null ? null : new Date(text));

/** Nothing, where something newer was said. */
async function setSaid(db: CatalogDatabase, id: RestorePointId, change: Change, asOf: Date): Promise<void> {
  await db
    .updateTable('restore_points')
    .set({ ...change, said_at: asOf })
    .where('restore_point_id', '=', id)
    .where(notLate('said_at', asOf))
    .execute();
}

/** Rows of them, as they were in the repository at that time, in its trash or not; ISO 8601. */
export async function storePoints(
  db: CatalogDatabase,
  points: readonly (SealedRestorePoint | TrashedRestorePoint)[],
  asOf: string,
): Promise<void> {
  for (const point of points) {
    await recordRestorePoint(db, point);
    const said = columnsOf({ state: stateOf(point), why: point.mark?.why.message ?? null, flags: point.flags });
    const place =
      'trashedUntil' in point
        ? { removed_at: new Date(asOf), trashed_until: dateOrNull(point.trashedUntil) }
        : { removed_at: null, trashed_until: null };
    await setSaid(db, point.restorePointId, { ...said, ...place }, new Date(asOf));
  }
}

/** They lie in the trash from now on; said again: since when they do does not change. Of one that is not known: nothing. */
export async function storeRemoved(db: CatalogDatabase, removed: readonly RemovedSign[]): Promise<void> {
  for (const { restorePointId, trashedUntil, asOf } of removed) {
    const at = new Date(asOf);
    await db
      .updateTable('restore_points')
      .set({ removed_at: sql`coalesce(removed_at, ${at})`, trashed_until: dateOrNull(trashedUntil), said_at: at })
      .where('restore_point_id', '=', restorePointId)
      .where(notLate('said_at', at))
      .execute();
  }
}

/** What a check found: marks that came, and that went. */
export async function storeMarks(
  db: CatalogDatabase,
  marks: { damaged: readonly RestorePointId[]; healed: readonly RestorePointId[]; why: string },
): Promise<void> {
  const { damaged, healed, why } = marks;
  const set = (ids: readonly RestorePointId[], columns: { damaged: number; mark_reason: string | null }) =>
    ids.length === 0
      ? Promise.resolve()
      : db.updateTable('restore_points').set(columns).where('restore_point_id', 'in', ids).execute();
  await set(damaged, { damaged: 1, mark_reason: shortened(why) });
  await set(healed, { damaged: 0, mark_reason: null });
}

/** What a repository says of its restore points, in the catalog's rows: the repository is the truth (invariant 9). */
import type { RepositoryId, RestorePointId } from '../domain/ids.ts';
import type { RestorePointFlags } from '../domain/maintenance.ts';
import {
  noFlags,
  type RestorePointPage,
  type RestorePointSign,
  type SealedRestorePoint,
  stateOf,
} from '../domain/maintenance-sessions.ts';
import type { RestorePointState } from '../domain/retention.ts';
import type { CatalogDatabase } from './connection.ts';
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
  changed: number;
  removed: number;
};

/**
 * Rows in the page's span of ids take the flags and marks of the page; those that are not in it are gone, unless they
 * were sealed after it was made. Those in the trash stay for as long as they can be brought back.
 */
export async function storePage(
  db: CatalogDatabase,
  repository: RepositoryId,
  page: RestorePointPage,
): Promise<PageStored> {
  const rows = await rowsIn(db, repository, page);
  const known = new Map(rows.map((row) => [row.restore_point_id, row]));
  const stored: PageStored = { missing: [], changed: 0, removed: 0 };
  for (const sign of page.signs) {
    const row = known.get(sign.restorePointId);
    known.delete(sign.restorePointId);
    if (!row || row.manifest_digest !== sign.manifestDigest || row.removed_at !== null)
      stored.missing.push(sign.restorePointId);
    else if (differs(row, saidOf(sign))) {
      await db
        .updateTable('restore_points')
        .set(saidOf(sign))
        .where('restore_point_id', '=', sign.restorePointId)
        .execute();
      stored.changed += 1;
    }
  }
  const asOf = new Date(page.asOf);
  for (const [id, { sealed_at, removed_at, trashed_until }] of known) {
    const isGone = removed_at === null ? sealed_at <= asOf : trashed_until === null || trashed_until <= asOf;
    if (!isGone) continue;
    await db.deleteFrom('restore_points').where('restore_point_id', '=', id).execute();
    if (removed_at === null) stored.removed += 1;
  }
  return stored;
}

async function rowsIn(db: CatalogDatabase, repository: RepositoryId, { after, upTo }: RestorePointPage) {
  let query = db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'manifest_digest', 'sealed_at', 'removed_at', 'trashed_until'])
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

/** As they are now in the repository: not, or no longer, in its trash. */
export async function storeSealed(db: CatalogDatabase, points: readonly SealedRestorePoint[]): Promise<void> {
  for (const point of points) {
    await recordRestorePoint(db, point);
    const said = columnsOf({ state: stateOf(point), why: point.mark?.why.message ?? null, flags: point.flags });
    await db
      .updateTable('restore_points')
      .set({ ...said, removed_at: null, trashed_until: null })
      .where('restore_point_id', '=', point.restorePointId)
      .execute();
  }
}

/** They lie in the trash from now on; said again, or of one that is not known: no change. */
export async function storeRemoved(
  db: CatalogDatabase,
  removed: readonly { restorePointId: RestorePointId; trashedUntil: string | null }[],
  at: Date,
): Promise<void> {
  for (const { restorePointId, trashedUntil } of removed)
    await db
      .updateTable('restore_points')
      .set({ removed_at: at, trashed_until: trashedUntil === null ? null : new Date(trashedUntil) })
      .where('restore_point_id', '=', restorePointId)
      .where('removed_at', 'is', null)
      .execute();
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

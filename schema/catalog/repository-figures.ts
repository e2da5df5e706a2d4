/** How full repositories are: as last seen, and day by day. */
import { sql } from 'kysely';
import type { RepositorySpace } from '../domain/maintenance-sessions.ts';
import type { RepositoryStatistics } from '../domain/maintenance.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, isoOrNull, toJson } from './json.ts';
import { notLate } from './late-answers.ts';

const dayOf = (iso: string): string => iso.slice(0, 10);

/** What is older than the catalog's own figure (an answer that came late) changes nothing. */
export async function recordSpace(db: CatalogDatabase, repository: string, space: RepositorySpace): Promise<void> {
  const at = new Date(space.at);
  const { freeBytes: free_bytes, totalBytes: total_bytes } = space;
  const done = await db
    .updateTable('repositories')
    .set({ free_bytes, total_bytes, space_at: at })
    .where('repository_id', '=', repository)
    .where(notLate('space_at', at))
    .executeTakeFirst();
  if (done.numUpdatedRows === 0n) return;
  await db
    .insertInto('repository_days')
    .values({ repository_id: repository, day: dayOf(space.at), free_bytes, total_bytes })
    .onDuplicateKeyUpdate({ free_bytes, total_bytes })
    .execute();
}

/** After the space of the same moment. */
export async function recordStatistics(
  db: CatalogDatabase,
  repository: string,
  statistics: RepositoryStatistics,
  at: string,
): Promise<void> {
  await db
    .updateTable('repositories')
    .set({ statistics: toJson(statistics), statistics_at: new Date(at) })
    .where('repository_id', '=', repository)
    .execute();
  await db
    .updateTable('repository_days')
    .set({
      restore_points: statistics.restorePoints,
      logical_bytes: statistics.logicalBytes,
      deduplicated_bytes: statistics.deduplicatedBytes,
      stored_bytes: statistics.storedBytes,
      dead_bytes: statistics.deadBytes,
      trash_bytes: statistics.trashBytes,
    })
    .where('repository_id', '=', repository)
    .where('day', '=', dayOf(at))
    .execute();
}

/** `day`: "2026-11-25". What was not measured on a day is null. Bytes. */
export type RepositoryDay = {
  day: string;
  freeBytes: number;
  totalBytes: number;
  restorePoints: number | null;
  logicalBytes: number | null;
  deduplicatedBytes: number | null;
  storedBytes: number | null;
  deadBytes: number | null;
  trashBytes: number | null;
};

/**
 * The newest so many days of which there are figures, oldest first. None after that of the space as last seen: a clock that
 * was ahead has left it. It is not deleted: were the clock behind now instead, it would be a true one.
 */
export async function listRepositoryDays(
  db: CatalogDatabase,
  repository: string,
  limit: number,
): Promise<RepositoryDay[]> {
  const rows = await db
    .selectFrom('repository_days')
    .innerJoin('repositories', 'repositories.repository_id', 'repository_days.repository_id')
    .selectAll('repository_days')
    .where('repository_days.repository_id', '=', repository)
    .where('day', '<=', sql<string>`date_format(space_at, '%Y-%m-%d')`)
    .orderBy('day', 'desc')
    .limit(limit)
    .execute();
  return rows.toReversed().map((row) => ({
    day: row.day,
    freeBytes: row.free_bytes,
    totalBytes: row.total_bytes,
    restorePoints: row.restore_points,
    logicalBytes: row.logical_bytes,
    deduplicatedBytes: row.deduplicated_bytes,
    storedBytes: row.stored_bytes,
    deadBytes: row.dead_bytes,
    trashBytes: row.trash_bytes,
  }));
}

export type RepositoryFigures = {
  space: RepositorySpace | null;
  statistics: RepositoryStatistics | null;
  statisticsAt: string | null;
};

/** As last told; all null for one that never told anything, or is not known. */
export async function loadRepositoryFigures(db: CatalogDatabase, repository: string): Promise<RepositoryFigures> {
  const row = await db
    .selectFrom('repositories')
    .select(['free_bytes', 'total_bytes', 'space_at', 'statistics', 'statistics_at'])
    .where('repository_id', '=', repository)
    .executeTakeFirst();
  if (!row) return { space: null, statistics: null, statisticsAt: null };
  const { free_bytes: freeBytes, total_bytes: totalBytes, space_at: at } = row;
  return {
    space: freeBytes === null || totalBytes === null || at === null ? null : spaceOf(freeBytes, totalBytes, at),
    statistics: row.statistics === null ? null : fromJson<RepositoryStatistics>(row.statistics),
    statisticsAt: isoOrNull(row.statistics_at),
  };
}

const spaceOf = (freeBytes: number, totalBytes: number, at: Date): RepositorySpace => ({
  freeBytes,
  totalBytes,
  at: at.toISOString(),
});

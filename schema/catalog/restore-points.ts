/** Index of the repositories' restore points: rebuilt from manifests at will (invariant 9). */
import { TidemarkError } from '../domain/errors.ts';
import { type LineageId, restorePointId, type RestorePointId } from '../domain/ids.ts';
import type { Manifest, SealOutcome } from '../domain/restore-point.ts';
import type { RetentionPoint } from '../domain/retention.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, prefixPattern, toJson } from './json.ts';

/** The same restore point again replaces its row, but not what a person or a check said of it since. */
export async function recordRestorePoint(db: CatalogDatabase, sealed: SealOutcome): Promise<void> {
  const { manifest } = sealed;
  const sum = (pick: (disk: Manifest['disks'][number]) => number): number =>
    manifest.disks.reduce((total, disk) => total + pick(disk), 0);
  const row = {
    repository_id: manifest.repository,
    lineage: manifest.lineage,
    run_key: manifest.run,
    job_id: manifest.jobId,
    session_id: manifest.sessionId,
    vm_id: manifest.vm.vmId,
    vm_name: manifest.vm.name,
    host_id: manifest.vm.hostId,
    base_restore_point_id: manifest.baseRestorePointId,
    nominal_time: new Date(manifest.nominalTime),
    taken_at: new Date(manifest.takenAt),
    sealed_at: new Date(manifest.sealedAt),
    consistency: manifest.consistency.reached,
    size_bytes: sum((disk) => disk.sizeBytes),
    read_bytes: sum((disk) => disk.readBytes),
    sent_bytes: sum((disk) => disk.sentBytes),
    stored_bytes: sum((disk) => disk.conservation.storedBytes),
    manifest_digest: sealed.manifestDigest,
    manifest: toJson(manifest),
  };
  await db
    .insertInto('restore_points')
    .values({ restore_point_id: sealed.restorePointId, suspect: manifest.suspect ? 1 : 0, ...row })
    .onDuplicateKeyUpdate(row)
    .execute();
}

/** What is left out stays as it is. `hold`: the reason, at most 1024 characters; null releases it. */
export type RestorePointFlagChange = { suspect?: boolean; damaged?: boolean; keep?: boolean; hold?: string | null };

/** RESTORE_POINT_NOT_FOUND; BAD_REQUEST for a reason that is too long. */
export async function flagRestorePoint(
  db: CatalogDatabase,
  id: RestorePointId,
  flags: RestorePointFlagChange,
): Promise<void> {
  const { suspect, damaged, keep, hold } = flags;
  if ((hold?.length ?? 0) > MAX_HOLD_LENGTH)
    throw new TidemarkError('BAD_REQUEST', `the reason to hold ${id} has over ${MAX_HOLD_LENGTH} characters`);
  const done = await db
    .updateTable('restore_points')
    .set({
      // Its own value: a set of nothing would be no statement.
      restore_point_id: id,
      ...(suspect === undefined ? {} : { suspect: suspect ? 1 : 0 }),
      ...(damaged === undefined ? {} : { damaged: damaged ? 1 : 0 }),
      ...(keep === undefined ? {} : { keep_always: keep ? 1 : 0 }),
      ...(hold === undefined ? {} : { hold_reason: hold }),
    })
    .where('restore_point_id', '=', id)
    .executeTakeFirst();
  if (done.numUpdatedRows === 0n)
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `there is no restore point ${id}`, { restorePointId: id });
}

const MAX_HOLD_LENGTH = 1024;

/** All of a lineage, for `decideRetention`; locks are the repository's to add. */
export async function loadRetentionPoints(
  db: CatalogDatabase,
  lineage: LineageId,
): Promise<Omit<RetentionPoint, 'lockedUntil'>[]> {
  const rows = await db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'taken_at', 'nominal_time', 'sealed_at'])
    .select(['suspect', 'damaged', 'keep_always', 'hold_reason'])
    .where('lineage', '=', lineage)
    .orderBy('taken_at', 'desc')
    .execute();
  return rows.map((row) => ({
    restorePointId: restorePointId(row.restore_point_id),
    takenAt: row.taken_at.toISOString(),
    nominalTime: row.nominal_time.toISOString(),
    sealedAt: row.sealed_at.toISOString(),
    state: row.damaged !== 0 ? 'damaged' : row.suspect !== 0 ? 'suspect' : 'good',
    keep: row.keep_always !== 0,
    hold: row.hold_reason,
  }));
}

export type RestorePointSummary = {
  restorePointId: string;
  repositoryId: string;
  jobId: string;
  sessionId: string;
  vmId: string;
  vmName: string;
  takenAt: string;
  sealedAt: string;
  consistency: string;
  suspect: boolean;
  damaged: boolean;
  keep: boolean;
  /** Why it is held; null: it is not. */
  hold: string | null;
  sizeBytes: number;
  readBytes: number;
  sentBytes: number;
  storedBytes: number;
};
export type RestorePointFilter = {
  vmId?: string;
  vmName?: string;
  jobId?: string;
  sessionId?: string;
  limit?: number;
  /** First characters of the restore point's id. */
  idPrefix?: string;
};

/** Newest first. */
export async function listRestorePoints(
  db: CatalogDatabase,
  filter: RestorePointFilter = {},
): Promise<RestorePointSummary[]> {
  let query = db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'repository_id', 'job_id', 'session_id', 'vm_id', 'vm_name', 'taken_at', 'sealed_at'])
    .select(['consistency', 'suspect', 'damaged', 'keep_always', 'hold_reason'])
    .select(['size_bytes', 'read_bytes', 'sent_bytes', 'stored_bytes'])
    .orderBy('taken_at', 'desc')
    .limit(filter.limit ?? 1000);
  if (filter.vmId !== undefined) query = query.where('vm_id', '=', filter.vmId);
  if (filter.vmName !== undefined) query = query.where('vm_name', '=', filter.vmName);
  if (filter.jobId !== undefined) query = query.where('job_id', '=', filter.jobId);
  if (filter.sessionId !== undefined) query = query.where('session_id', '=', filter.sessionId);
  if (filter.idPrefix !== undefined) query = query.where('restore_point_id', 'like', prefixPattern(filter.idPrefix));
  return (await query.execute()).map((row) => ({
    restorePointId: row.restore_point_id,
    repositoryId: row.repository_id,
    jobId: row.job_id,
    sessionId: row.session_id,
    vmId: row.vm_id,
    vmName: row.vm_name,
    takenAt: row.taken_at.toISOString(),
    sealedAt: row.sealed_at.toISOString(),
    consistency: row.consistency,
    suspect: row.suspect !== 0,
    damaged: row.damaged !== 0,
    keep: row.keep_always !== 0,
    hold: row.hold_reason,
    sizeBytes: row.size_bytes,
    readBytes: row.read_bytes,
    sentBytes: row.sent_bytes,
    storedBytes: row.stored_bytes,
  }));
}

/** The manifest and where it lies; null when the catalog does not know it. */
export async function loadRestorePoint(db: CatalogDatabase, restorePointId: string): Promise<SealOutcome | null> {
  const row = await db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'manifest_digest', 'manifest'])
    .where('restore_point_id', '=', restorePointId)
    .executeTakeFirst();
  if (!row) return null;
  const manifest = fromJson<Manifest>(row.manifest);
  return { restorePointId: manifest.restorePointId, manifestDigest: row.manifest_digest, manifest };
}

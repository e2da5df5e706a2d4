/** Index of the repositories' restore points: rebuilt from manifests at will (invariant 9). */
import type { Manifest, SealOutcome } from '../domain/restore-point.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, isoOrNull, prefixPattern, toJson } from './json.ts';

/** `lockedUntil`: as it was sealed, ISO 8601. */
type Recorded = SealOutcome & { lockedUntil?: string | null };

/** The same restore point again replaces its row, but not what a person or a check said of it since. */
export async function recordRestorePoint(db: CatalogDatabase, sealed: Recorded): Promise<void> {
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
    .values({
      restore_point_id: sealed.restorePointId,
      suspect: manifest.suspect ? 1 : 0,
      locked_until: sealed.lockedUntil ? new Date(sealed.lockedUntil) : null,
      ...row,
    })
    .onDuplicateKeyUpdate(row)
    .execute();
}

/** Stored bytes of a job's newest restore points in a repository, newest first; at most `limit` of all its VMs. */
export async function listStoredBytes(
  db: CatalogDatabase,
  { jobId, repositoryId, limit }: { jobId: string; repositoryId: string; limit: number },
): Promise<{ vmId: string; storedBytes: number; isIncrement: boolean }[]> {
  const rows = await db
    .selectFrom('restore_points')
    .select(['vm_id', 'stored_bytes', 'base_restore_point_id'])
    .where('job_id', '=', jobId)
    .where('repository_id', '=', repositoryId)
    .orderBy('taken_at', 'desc')
    .limit(limit)
    .execute();
  return rows.map((row) => ({
    vmId: row.vm_id,
    storedBytes: row.stored_bytes,
    isIncrement: row.base_restore_point_id !== null,
  }));
}

export type RestorePointSummary = {
  restorePointId: string;
  repositoryId: string;
  jobId: string;
  sessionId: string;
  vmId: string;
  vmName: string;
  /** When it was due. */
  nominalTime: string;
  takenAt: string;
  sealedAt: string;
  consistency: string;
  suspect: boolean;
  damaged: boolean;
  keep: boolean;
  /** Why it is held; null: it is not. */
  hold: string | null;
  lockedUntil: string | null;
  /** What the audit or the check found; null: nothing, or not why. */
  markReason: string | null;
  /** Since when it lies in the trash; null: it does not. */
  removedAt: string | null;
  /** Until then it can be brought back; null: nobody said. */
  trashedUntil: string | null;
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
  repositoryId?: string;
  /** Those in the trash instead of those that can be restored. */
  removed?: boolean;
  limit?: number;
  /** First characters of the restore point's id. */
  idPrefix?: string;
};

/** Those sealed last first: that is the order of a VM's in one repository, whatever their hypervisor's clock showed. */
export async function listRestorePoints(
  db: CatalogDatabase,
  filter: RestorePointFilter = {},
): Promise<RestorePointSummary[]> {
  let query = db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'repository_id', 'job_id', 'session_id', 'vm_id', 'vm_name'])
    .select(['nominal_time', 'taken_at', 'sealed_at'])
    .select(['consistency', 'suspect', 'damaged', 'keep_always', 'hold_reason', 'mark_reason', 'locked_until'])
    .select(['removed_at', 'trashed_until', 'size_bytes', 'read_bytes', 'sent_bytes', 'stored_bytes'])
    .where('removed_at', filter.removed === true ? 'is not' : 'is', null)
    .orderBy('sealed_at', 'desc')
    .limit(filter.limit ?? 1000);
  if (filter.vmId !== undefined) query = query.where('vm_id', '=', filter.vmId);
  if (filter.vmName !== undefined) query = query.where('vm_name', '=', filter.vmName);
  if (filter.jobId !== undefined) query = query.where('job_id', '=', filter.jobId);
  if (filter.sessionId !== undefined) query = query.where('session_id', '=', filter.sessionId);
  if (filter.repositoryId !== undefined) query = query.where('repository_id', '=', filter.repositoryId);
  if (filter.idPrefix !== undefined) query = query.where('restore_point_id', 'like', prefixPattern(filter.idPrefix));
  return (await query.execute()).map((row) => ({
    restorePointId: row.restore_point_id,
    repositoryId: row.repository_id,
    jobId: row.job_id,
    sessionId: row.session_id,
    vmId: row.vm_id,
    vmName: row.vm_name,
    nominalTime: row.nominal_time.toISOString(),
    takenAt: row.taken_at.toISOString(),
    sealedAt: row.sealed_at.toISOString(),
    consistency: row.consistency,
    suspect: row.suspect !== 0,
    damaged: row.damaged !== 0,
    keep: row.keep_always !== 0,
    hold: row.hold_reason,
    lockedUntil: isoOrNull(row.locked_until),
    markReason: row.mark_reason,
    removedAt: isoOrNull(row.removed_at),
    trashedUntil: isoOrNull(row.trashed_until),
    sizeBytes: row.size_bytes,
    readBytes: row.read_bytes,
    sentBytes: row.sent_bytes,
    storedBytes: row.stored_bytes,
  }));
}

/** The manifest and where it lies; null when the catalog does not know it, or as one in the trash. */
export async function loadRestorePoint(db: CatalogDatabase, restorePointId: string): Promise<SealOutcome | null> {
  const row = await db
    .selectFrom('restore_points')
    .select(['restore_point_id', 'manifest_digest', 'manifest'])
    .where('restore_point_id', '=', restorePointId)
    .where('removed_at', 'is', null)
    .executeTakeFirst();
  if (!row) return null;
  const manifest = fromJson<Manifest>(row.manifest);
  return { restorePointId: manifest.restorePointId, manifestDigest: row.manifest_digest, manifest };
}

/** Of each job in each repository, those that can be restored. */
export async function countRestorePoints(
  db: CatalogDatabase,
): Promise<{ jobId: string; repositoryId: string; count: number }[]> {
  const rows = await db
    .selectFrom('restore_points')
    .select(['job_id', 'repository_id', (eb) => eb.fn.countAll<number | string>().as('count')])
    .where('removed_at', 'is', null)
    .groupBy(['job_id', 'repository_id'])
    .orderBy('repository_id')
    .execute();
  return rows.map((row) => ({ jobId: row.job_id, repositoryId: row.repository_id, count: Number(row.count) }));
}

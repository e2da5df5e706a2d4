/** Index of the repositories' restore points: rebuilt from manifests at will (invariant 9). */
import type { Manifest, SealOutcome } from '../domain/restore-point.ts';
import type { CatalogDatabase } from './connection.ts';
import { fromJson, prefixPattern, toJson } from './json.ts';

/** The same restore point again replaces its row. */
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
    suspect: manifest.suspect ? 1 : 0,
    size_bytes: sum((disk) => disk.sizeBytes),
    read_bytes: sum((disk) => disk.readBytes),
    sent_bytes: sum((disk) => disk.sentBytes),
    stored_bytes: sum((disk) => disk.conservation.storedBytes),
    manifest_digest: sealed.manifestDigest,
    manifest: toJson(manifest),
  };
  await db
    .insertInto('restore_points')
    .values({ restore_point_id: sealed.restorePointId, ...row })
    .onDuplicateKeyUpdate(row)
    .execute();
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
    .select(['consistency', 'suspect', 'size_bytes', 'read_bytes', 'sent_bytes', 'stored_bytes'])
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

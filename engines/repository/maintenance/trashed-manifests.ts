/** Manifests in the trash: restore points that were removed, and can be brought back until their grace is over. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { parseManifest } from '../../../schema/repository/documents.ts';
import { MAX_SEALED_DOCUMENT_BYTES } from '../../../schema/repository/limits.ts';
import { outcomeOf } from '../restore-point/points.ts';
import { listedManifest } from '../storage/documents.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { TimeReading } from './repository-time.ts';
import type { TrashedManifest } from './trash-list.ts';

/** RESTORE_POINT_NOT_FOUND when it has gone meanwhile; errors that are damage. */
export async function readTrashedManifest(
  { storage, vault }: Pick<MaintenanceParts, 'storage' | 'vault'>,
  object: TrashedManifest,
): Promise<SealOutcome> {
  const path = `${storage.store.locate(object.name)} in the trash of epoch ${object.epoch}`;
  const file = await storage.store.openTrashed(object);
  if (!file) throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `${path} is gone`, { path });
  try {
    const bytes = Buffer.alloc(Math.min(await file.lengthBytes(), MAX_SEALED_DOCUMENT_BYTES));
    const source = bytes.toString('utf8', 0, await file.read(bytes, 0));
    const { manifest, digest } = parseManifest(vault.openText(listedManifest(object.name), source, path), path);
    return outcomeOf(manifest, digest);
  } finally {
    await file.close();
  }
}

/** The earliest end of its grace: from when its epoch was settled, or else from now on. Null while the time is in doubt. */
export function trashedUntil(
  { state, graceMs }: Pick<MaintenanceParts, 'state' | 'graceMs'>,
  epoch: number,
  { nowMs, doubt }: TimeReading,
): string | null {
  if (doubt !== null || nowMs === null) return null;
  return new Date((state.lyingSince(epoch) ?? nowMs) + graceMs).toISOString();
}

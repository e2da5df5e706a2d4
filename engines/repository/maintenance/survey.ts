/** What there is and what lies in the trash, told at one moment: whoever keeps a list of them misses none. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { LineageId, RestorePointId } from '../../../schema/domain/ids.ts';
import type {
  SealedRestorePoint,
  TrashedRestorePoint,
  TrashedSign,
} from '../../../schema/domain/maintenance-sessions.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import { isDamage } from '../storage/documents.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { TrashedManifest } from './trash-list.ts';
import { readTrashedManifest, trashedUntil } from './trashed-manifests.ts';

/** By time of the checkpoint; by epoch. None is in both. `asOf`: the moment, by the clock of the host. */
export type Survey = { sealed: SealedRestorePoint[]; trashed: TrashedSign[]; asOf: string };

/** In turn with whoever moves manifests: none is on its way. */
export const surveyPoints = (parts: MaintenanceParts, listSealed: () => SealedRestorePoint[]): Promise<Survey> =>
  parts.turns.take('trash', async () => {
    const time = await parts.time.read();
    const trashed = (await listRemoved(parts)).map(({ restorePointId, epoch }) => ({
      restorePointId,
      trashedUntil: trashedUntil(parts, epoch, time),
    }));
    return { sealed: listSealed(), trashed, asOf: new Date(parts.seams.clock.now()).toISOString() };
  });

/** What a crash has left in both places is not. */
export async function listRemoved(parts: MaintenanceParts): Promise<TrashedManifest[]> {
  return [...(await parts.trashed.find()).values()].filter(
    ({ restorePointId }) => !parts.points.sealed.has(restorePointId),
  );
}

/** Of these those that are in the trash, and can be read: what cannot be, can not be brought back either. */
export async function describeTrashed(
  parts: MaintenanceParts,
  ids: readonly RestorePointId[],
  view: (sealed: SealOutcome) => SealedRestorePoint,
): Promise<TrashedRestorePoint[]> {
  const wanted = new Set(ids);
  const time = await parts.time.read();
  const found: TrashedRestorePoint[] = [];
  for (const trashed of (await listRemoved(parts)).filter(({ restorePointId }) => wanted.has(restorePointId))) {
    const sealed = await readUnlessDamaged(parts, trashed);
    if (sealed) found.push({ ...view(sealed), trashedUntil: trashedUntil(parts, trashed.epoch, time) });
  }
  return found;
}

/** Of a lineage, those whose manifests can be read. */
export async function trashedOfLineage(parts: MaintenanceParts, lineage: LineageId): Promise<Manifest[]> {
  const found: Manifest[] = [];
  for (const trashed of await listRemoved(parts)) {
    const sealed = await readUnlessDamaged(parts, trashed);
    if (sealed?.manifest.lineage === lineage) found.push(sealed.manifest);
  }
  return found;
}

/** Null when it is gone or damaged. */
export async function readUnlessDamaged(
  parts: MaintenanceParts,
  trashed: TrashedManifest,
): Promise<SealOutcome | null> {
  try {
    return await readTrashedManifest(parts, trashed);
  } catch (error) {
    const isGone = errorCodeOf(error) === 'RESTORE_POINT_NOT_FOUND';
    if (!isGone && !isDamage(error)) throw error;
    const { restorePointId } = trashed;
    if (!isGone) parts.seams.log.warn('damaged manifest in the trash', { restorePointId, error: String(error) });
    return null;
  }
}

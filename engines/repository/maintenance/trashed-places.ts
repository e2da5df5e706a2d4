/** Which restore points lie in the trash, for whoever asks again and again: each manifest is read once. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { TrashedSign } from '../../../schema/domain/maintenance-sessions.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { listRemoved, readUnlessDamaged } from './survey.ts';
import { trashedUntil } from './trashed-manifests.ts';

type Place = Pick<Manifest, 'lineage' | 'takenAt'>;
/** Where it was among the others. */
export type TrashedPlace = TrashedSign & Place;

/** Of `ids` those that are in the trash, and can be read. */
export type PlaceTrashed = (ids: readonly RestorePointId[]) => Promise<TrashedPlace[]>;

/** Remembers little of each, and forgets what is in the trash no more. */
export function createTrashedPlaces(parts: MaintenanceParts): PlaceTrashed {
  const known = new Map<RestorePointId, Place>();
  return async (ids) => {
    const time = await parts.time.read();
    const removed = new Map((await listRemoved(parts)).map((trashed) => [trashed.restorePointId, trashed]));
    for (const id of known.keys()) if (!removed.has(id)) known.delete(id);
    const places: TrashedPlace[] = [];
    for (const restorePointId of ids) {
      const trashed = removed.get(restorePointId);
      if (!trashed) continue;
      const found = known.get(restorePointId) ?? (await readUnlessDamaged(parts, trashed))?.manifest;
      if (!found) continue;
      const place = { lineage: found.lineage, takenAt: found.takenAt };
      known.set(restorePointId, place);
      places.push({ restorePointId, ...place, trashedUntil: trashedUntil(parts, trashed.epoch, time) });
    }
    return places;
  };
}

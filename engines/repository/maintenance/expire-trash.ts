/** What has been in the trash for longer than the grace is removed for good, unless something needs it after all. */
import type { CollectionReport } from '../../../schema/domain/maintenance.ts';
import type { TrashedObject } from '../storage/store.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { TimeReading } from './repository-time.ts';
import { bringPackBack, objectOf, readTrashed, type Trash, type TrashedManifest, type TrashedPack } from './trash.ts';
import type { TrashWatch } from './trash-watch.ts';

/** Ids that are watched at once: 50 MB. Packs beyond them wait for the next collection. */
const MOST_WATCHED = 2 * 1024 * 1024;

/** `packs`: by the numbers that the watch has of them. */
export type Expired = { packs: TrashedPack[]; manifests: TrashedManifest[] };

/** Nothing while the time is in doubt. */
export async function findExpired(
  parts: MaintenanceParts,
  trash: Trash,
  time: TimeReading,
  watch: TrashWatch,
): Promise<Expired> {
  const { nowMs, doubt } = time;
  if (doubt !== null || nowMs === null) return { packs: [], manifests: [] };
  const isOver = ({ epoch }: { epoch: number }): boolean => {
    const sinceMs = parts.state.lyingSince(epoch);
    return sinceMs !== null && sinceMs + parts.graceMs <= nowMs;
  };
  const packs: TrashedPack[] = [];
  for (const pack of trash.packs.filter(isOver)) {
    if (watch.count >= MOST_WATCHED) break;
    const listing = await readTrashed(parts, pack);
    // One that cannot be read may be of use to somebody who repairs.
    if (!listing) continue;
    for (const { header } of listing.records)
      if (parts.records.lookup(header.id) === null) watch.add(header.id, packs.length);
    packs.push(pack);
  }
  return { packs, manifests: trash.manifests.filter(isOver) };
}

/** After everything that is living was marked. */
export async function removeExpired(
  parts: MaintenanceParts,
  { packs, manifests }: Expired,
  watch: TrashWatch,
  report: CollectionReport,
  signal: AbortSignal,
): Promise<void> {
  for (const [number, pack] of packs.entries()) {
    signal.throwIfAborted();
    if (watch.needed.has(number)) {
      if (await bringPackBack(parts, pack)) report.packsRestored += 1;
      continue;
    }
    const bytes = await removeForGood(parts, objectOf(pack));
    if (bytes === null) continue;
    report.packsRemoved += 1;
    report.removedBytes += bytes;
  }
  for (const manifest of manifests) await removeForGood(parts, manifest);
}

/** Its length, bytes; null when it was not there any more. */
function removeForGood({ storage, turns }: MaintenanceParts, object: TrashedObject): Promise<number | null> {
  const { store } = storage;
  return turns.take('trash', async () => {
    const file = await store.openTrashed(object);
    if (!file) return null;
    const bytes = await file.lengthBytes().finally(() => file.close());
    await store.removeFromTrash(object);
    return bytes;
  });
}

/** Flags of restore points that are nowhere any more. */
export async function forgetLostFlags({ flags, points }: MaintenanceParts, manifests: readonly TrashedManifest[]) {
  const trashed = new Set(manifests.map(({ restorePointId }) => restorePointId));
  for (const id of flags.ids())
    if (!points.sealed.has(id) && !points.open.has(id) && !trashed.has(id)) await flags.forget(id);
}

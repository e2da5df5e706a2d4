/** What has been in the trash for longer than the grace is removed for good, unless something needs it after all. */
import type { CollectionReport } from '../../../schema/domain/maintenance.ts';
import type { StoredFile, TrashedObject } from '../storage/store.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import type { TimeReading } from './repository-time.ts';
import { layout, manifestIdOf } from '../storage/layout.ts';
import { bringPackBack, objectOf, readTrashed } from './trash.ts';
import { listTrash, type Trash, type TrashedManifest, type TrashedPack } from './trash-list.ts';
import type { TrashWatch } from './trash-watch.ts';

/** Ids that are watched at once: 50 MB. Packs beyond them wait for the next collection. */
const MOST_WATCHED = 2 * 1024 * 1024;

/** `packs`: by the numbers that the watch has of them. */
export type Expired = { packs: TrashedPack[]; manifests: TrashedManifest[] };

/** Numbers that the watch has for what is needed of a pack. */
const soundIn = (pack: number): number => 2 * pack;
const damagedIn = (pack: number): number => 2 * pack + 1;

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
    for (const { header, offset } of listing.records) {
      if (parts.records.lookup(header.id) !== null) continue;
      const isDamaged = parts.damages.list.has(pack.packId, offset);
      watch.add(header.id, isDamaged ? damagedIn(packs.length) : soundIn(packs.length));
    }
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
    if (watch.needed.has(soundIn(number))) {
      if (await bringPackBack(parts, pack)) report.packsRestored += 1;
      continue;
    }
    // A repair took from it what was sound; the rest may be of use to somebody, for as long as it is missed.
    if (watch.needed.has(damagedIn(number))) continue;
    const bytes = await removeForGood(parts, objectOf(pack));
    if (bytes === null) continue;
    report.packsRemoved += 1;
    report.removedBytes += bytes;
  }
  for (const manifest of manifests) await removeForGood(parts, manifest);
}

async function lengthOf(file: StoredFile): Promise<number> {
  try {
    return await file.lengthBytes();
  } finally {
    await file.close();
  }
}

/** Its length, bytes; null when it was not there any more. */
function removeForGood({ storage, turns }: MaintenanceParts, object: TrashedObject): Promise<number | null> {
  const { store } = storage;
  return turns.take('trash', async () => {
    const file = await store.openTrashed(object);
    if (!file) return null;
    const bytes = await lengthOf(file);
    await store.removeFromTrash(object);
    return bytes;
  });
}

/** Flags of restore points that are nowhere any more. */
export async function forgetLostFlags(parts: MaintenanceParts): Promise<void> {
  const { flags, points, storage } = parts;
  // A manifest that cannot be read is one, too. What is removed meanwhile is met in the trash.
  const inPlace = new Set((await storage.store.list(layout.manifests)).map(manifestIdOf));
  const trashed = new Set((await listTrash(parts)).manifests.map(({ restorePointId }) => restorePointId));
  for (const id of flags.ids())
    if (!points.sealed.has(id) && !points.open.has(id) && !inPlace.has(id) && !trashed.has(id)) await flags.forget(id);
}

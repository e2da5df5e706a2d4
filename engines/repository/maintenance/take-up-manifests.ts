/** Manifests that could not be read when the repository was opened, and can be by now: a cable, a controller. */
import type { Parts } from '../restore-point/parts.ts';
import { readManifest } from '../restore-point/points.ts';
import { isDamage } from '../storage/documents.ts';
import { layout } from '../storage/layout.ts';

/** Their restore points are there again. */
export async function takeUpManifests(parts: Pick<Parts, 'storage' | 'vault' | 'points' | 'seams'>): Promise<void> {
  const { points, seams } = parts;
  if (points.damaged.length === 0) return;
  const { store } = parts.storage;
  for (const name of await store.list(layout.manifests)) {
    const path = store.locate(name);
    if (!points.damaged.includes(path)) continue;
    try {
      const found = await readManifest(parts, name);
      if (!found) continue;
      points.sealed.set(found.restorePointId, found);
      points.damaged = points.damaged.filter((one) => one !== path);
      seams.log.warn('a manifest can be read again', { path });
    } catch (error) {
      if (!isDamage(error)) throw error;
    }
  }
}

/** Manifests that could not be read when the repository was opened, and can be by now: a cable, a controller. */
import { parseManifest } from '../../../schema/repository/documents.ts';
import type { Parts } from '../restore-point/parts.ts';
import { outcomeOf } from '../restore-point/points.ts';
import { isDamage, listedManifest, readDocument } from '../storage/documents.ts';
import { layout } from '../storage/layout.ts';

/** Their restore points are there again. */
export async function takeUpManifests({
  storage,
  vault,
  points,
  seams,
}: Pick<Parts, 'storage' | 'vault' | 'points' | 'seams'>): Promise<void> {
  if (points.damaged.length === 0) return;
  const { store } = storage;
  for (const name of await store.list(layout.manifests)) {
    const path = store.locate(name);
    if (!points.damaged.includes(path)) continue;
    try {
      const text = await readDocument(store, vault, listedManifest(name));
      if (text === null) continue;
      const { manifest, digest } = parseManifest(text, path);
      points.sealed.set(manifest.restorePointId, outcomeOf(manifest, digest));
      points.damaged = points.damaged.filter((one) => one !== path);
      seams.log.warn('a manifest can be read again', { path });
    } catch (error) {
      if (!isDamage(error)) throw error;
    }
  }
}

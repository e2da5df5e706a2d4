/** Marks what is living: from the roots over each map page once, then what ledgers name. */
import { releaseOwnMemory } from '../../../schema/domain/memory.ts';
import { damageOf } from '../restore-point/damages.ts';
import { readPage, type DiskMap } from '../restore-point/page-reader.ts';
import type { Living } from './living.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { mapsOf, otherManifests, type Roots } from './roots.ts';
import { bringBackFor } from './trash.ts';
import { newSeenPages, walkMap } from './walk-map.ts';

export type Marking = {
  living: Living;
  roots: Roots;
  nowMs: number | null;
  signal: AbortSignal;
  /** Bytes of pages read so far. */
  progress: (doneBytes: number) => void;
};

/**
 * DAMAGED_BLOCK, REPOSITORY_CORRUPT, STORAGE_ERROR, TAMPERED: something that may be needed is not known. How many packs
 * were brought back from the trash for missing pages.
 */
export async function markLiving(parts: MaintenanceParts, marking: Marking): Promise<number> {
  const { living, roots, nowMs, signal } = marking;
  const idOf = (digest: Uint8Array): Uint8Array => parts.vault.idOf(digest);
  for (const digest of roots.pinned) living.touch(idOf(digest));
  const { locked, others } = mapsOf(parts, [...roots.sealed, ...(await otherManifests(parts, roots))], nowMs);
  const pages = createPageSource(parts, marking);
  const seen = newSeenPages();
  const walk = async (maps: readonly DiskMap[], mark: (id: Uint8Array) => void): Promise<void> => {
    for (const map of maps)
      await walkMap(map, {
        seen,
        read: pages.read,
        // Of many small pieces outside the heap the collector lets dozens of MiB gather.
        done: releaseOwnMemory,
        meet: (digest) => mark(idOf(digest)),
        pause: async () => signal.throwIfAborted(),
      });
  };
  // First: a page that is seen again is not marked again.
  await walk(locked, (id) => living.markLocked(id));
  await walk([...others, ...roots.maps], (id) => living.mark(id));
  for (const ledger of roots.ledgers) await markLedger(parts, ledger, marking);
  return pages.packsRestored();
}

function createPageSource(parts: MaintenanceParts, { progress }: Marking) {
  let [doneBytes, packsRestored] = [0, 0];
  const read = async (digest: Uint8Array): Promise<Uint8Array> => {
    try {
      const page = await readPage({ ...parts, index: parts.unwatched }, digest);
      progress((doneBytes += page.byteLength));
      return page;
    } catch (error) {
      const count = damageOf(error) ? await bringBackFor(parts, [parts.vault.idOf(digest)]) : 0;
      if (count === 0) throw error;
      packsRestored += count;
      return read(digest);
    }
  };
  return { read, packsRestored: () => packsRestored };
}

/** Of one that is sealed meanwhile its ledger is gone; but whatever a seal looks up is touched. */
async function markLedger(
  { points, vault }: MaintenanceParts,
  { point, offsets }: Roots['ledgers'][number],
  { living, signal }: Marking,
): Promise<void> {
  for (const offset of offsets) {
    signal.throwIfAborted();
    try {
      for (const entry of (await point.ledger.read(offset)).entries)
        if (entry.kind === 'data') living.mark(vault.idOf(entry.digest));
    } catch (error) {
      if (points.open.get(point.head.restorePointId) === point) throw error;
      return;
    }
  }
}

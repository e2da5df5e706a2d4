/**
 * What a collection starts from: sealed restore points, also those that a failed seal left behind; open ones with their
 * ledgers and bases; what restores and transfers hold.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import type { OpenPoint } from '../restore-point/open-point.ts';
import type { DiskMap } from '../restore-point/page-reader.ts';
import { readManifest } from '../restore-point/points.ts';
import { layout, manifestIdOf } from '../storage/layout.ts';
import { isLocked } from './flags.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';

/** `offsets`: of frames in its ledger. */
type LedgerRoot = { point: OpenPoint; offsets: Float64Array };
export type Roots = { sealed: Manifest[]; maps: DiskMap[]; ledgers: LedgerRoot[]; pinned: Uint8Array[] };

/**
 * As they are at this moment. Between two seals, and in one go with the beginning of the watch: what comes later is
 * touched.
 */
export function takeRoots({ points, reliance }: MaintenanceParts): Roots {
  const open = [...points.open.values()];
  const bases = open.flatMap(({ head }) =>
    head.disks.flatMap(({ base, blockSize }) => (base ? [{ ...base, blockSize }] : [])),
  );
  return {
    sealed: [...points.sealed.values()].map(({ manifest }) => manifest),
    maps: [...bases, ...reliance.held()],
    ledgers: open.flatMap((point) =>
      [...point.disks.values()].map(({ frames }) => ({ point, offsets: offsetsOf(frames) })),
    ),
    pinned: [...reliance.pinned()],
  };
}

/** Windows of which nothing was read share a frame. */
const offsetsOf = (frames: Float64Array): Float64Array =>
  frames.filter((offset, window) => offset >= 0 && offset !== frames[window - 1]);

/**
 * Manifests that lie there and are not among the roots: of a seal that failed at its last sync, or that ended just
 * before the roots were taken. REPOSITORY_CORRUPT, STORAGE_ERROR: what a damaged manifest or an open restore point that
 * cannot be read needs, nobody knows.
 */
export async function otherManifests(parts: MaintenanceParts, { sealed }: Pick<Roots, 'sealed'>): Promise<Manifest[]> {
  const { staging, store } = parts.storage;
  const unread = parts.points.damaged.find((path) => path.startsWith(`${staging.locate(layout.open)}/`));
  if (unread !== undefined)
    throw new TidemarkError('REPOSITORY_CORRUPT', `${unread} cannot be read: what it needs is not known`, {
      path: unread,
    });
  // Not those known by now: one sealed since the roots were taken is known, and was never walked.
  const roots = new Set(sealed.map(({ restorePointId }) => restorePointId));
  const found: Manifest[] = [];
  for (const name of await store.list(layout.manifests)) {
    const id = manifestIdOf(name);
    if (id === null || roots.has(id)) continue;
    const other = await readManifest(parts, name);
    // Else it was removed meanwhile.
    if (other) found.push(other.manifest);
  }
  return found;
}

/** Maps of locked restore points, and of the others. `nowMs`: repository time. */
export function mapsOf({ flags }: MaintenanceParts, manifests: readonly Manifest[], nowMs: number | null) {
  const maps: { locked: DiskMap[]; others: DiskMap[] } = { locked: [], others: [] };
  for (const { restorePointId, disks } of manifests)
    maps[isLocked(flags.of(restorePointId), nowMs) ? 'locked' : 'others'].push(...disks);
  return maps;
}

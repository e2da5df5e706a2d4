/** Packs in which the blocks and pages of some restore points lie, as the index has it. */
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { createMapJudge } from '../restore-point/judge-map.ts';
import { createPageReader } from '../restore-point/page-reader.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';

type Shelf = Pick<MaintenanceParts, 'records' | 'unwatched' | 'source' | 'damages'>;

export async function packsOfPoints(
  shelf: Shelf,
  points: readonly SealOutcome[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const { records, unwatched } = shelf;
  const packs = new Set<string>();
  const note = (digest: Uint8Array): true => {
    const place = records.lookup(unwatched.idOf(digest))?.place;
    if (place) packs.add(place.pack);
    return true;
  };
  const reader = createPageReader({ ...shelf, index: unwatched });
  const page = (digest: Uint8Array): Promise<Uint8Array> => {
    note(digest);
    return reader.page(digest);
  };
  const walk = createMapJudge({ pages: { page }, resolves: note, signal });
  for (const { manifest } of points) for (const disk of manifest.disks) await walk.missingBytes(disk);
  return packs;
}

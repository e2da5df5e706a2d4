/** Packs in which the blocks and pages of some restore points lie, as the index has it. */
import type { RecordSource } from '../../../schema/domain/seams.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { createMapJudge } from '../restore-point/judge-map.ts';
import { createPageReader } from '../restore-point/page-reader.ts';
import type { Parts } from '../restore-point/parts.ts';

type Shelf = Pick<Parts, 'index' | 'damages'> & { source: RecordSource };

export async function packsOfPoints(
  shelf: Shelf,
  points: readonly SealOutcome[],
  signal: AbortSignal,
): Promise<Set<string>> {
  const { byId, idOf } = shelf.index;
  const packs = new Set<string>();
  const note = (digest: Uint8Array): true => {
    const place = byId.lookup(idOf(digest))?.place;
    if (place) packs.add(place.pack);
    return true;
  };
  const reader = createPageReader(shelf);
  const page = (digest: Uint8Array): Promise<Uint8Array> => {
    note(digest);
    return reader.page(digest);
  };
  const walk = createMapJudge({ pages: { page }, resolves: note, signal });
  for (const { manifest } of points) for (const disk of manifest.disks) await walk.missingBytes(disk);
  return packs;
}

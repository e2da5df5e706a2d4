/** Which restore points are whole, as far as is known: nothing is read but maps. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import { createMapJudge, type MapJudge } from './judge-map.ts';
import type { Parts } from './parts.ts';
import { requireSealed } from './points.ts';

/** Somebody waits for the answer. */
const MOST_MS = 5000;

type Shelf = Pick<Parts, 'points' | 'pages' | 'index' | 'seams'>;

/** The nearest restore points of the same VM that are whole; null: none, or none was found in time. */
export async function wholePointsAround(
  { points, pages, index, seams }: Shelf,
  id: RestorePointId,
): Promise<{ before: RestorePointId | null; after: RestorePointId | null }> {
  const { manifest } = requireSealed(points, id);
  const ofVm = [...points.sealed.values()]
    .map((sealed) => sealed.manifest)
    .filter(({ vm }) => vm.vmId === manifest.vm.vmId)
    .toSorted((a, b) => (a.sealedAt < b.sealedAt ? -1 : 1));
  const at = ofVm.findIndex((one) => one.restorePointId === id);
  const judge = createMapJudge({ pages, resolves: (digest, length) => index.holds(digest, length) });
  const untilMs = seams.clock.monotonic() + MOST_MS;
  const firstWhole = async (candidates: Manifest[]): Promise<RestorePointId | null> => {
    for (const one of candidates) {
      if (seams.clock.monotonic() > untilMs) return null;
      if (await isWhole(judge, one)) return one.restorePointId;
    }
    return null;
  };
  return { before: await firstWhole(ofVm.slice(0, at).toReversed()), after: await firstWhole(ofVm.slice(at + 1)) };
}

export async function isWhole(judge: MapJudge, { disks }: Manifest): Promise<boolean> {
  for (const disk of disks) if ((await judge.missingBytes(disk)) > 0) return false;
  return true;
}

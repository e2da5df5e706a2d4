/** What an increment reads besides the changes that were tracked. */
import { type Extent, union, widenToBlocks } from '../../../schema/domain/extents.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf, leafCountOf } from '../../../schema/repository/map-page.ts';
import type { Damages } from './damages.ts';
import { baseMapOf, hasBaseBlock, resolves } from './base-view.ts';
import type { DigestIndex } from './digest-index.ts';
import { soundLeaf, type PageReader } from './page-reader.ts';

/** The answer travels through workflow histories: beyond this many extents it is coarser, never shorter. */
const MAX_EXTENTS = 256;
const MAX_SOUND_MAPS = 1024;

/** Maps of which nothing was lost when so much damage was known: who asks again need not look again. */
export type SoundMaps = Map<string, number>;
type Shelf = { pages: PageReader; index: DigestIndex; soundMaps: SoundMaps; damages: Pick<Damages, 'count'> };

/**
 * Sorted, whole blocks: from the smaller size's end on where the disk was resized (with the block that holds it), and
 * blocks whose record or page the repository has lost. Empty but for CBT: the other modes read everything.
 */
export async function alsoReadOf(shelf: Shelf, disk: HeadDisk): Promise<Extent[]> {
  if (disk.plan.mode !== 'cbt' || disk.base === null) return [];
  const { sizeBytes } = disk.plan;
  let granuleBytes = disk.blockSize;
  let extents = widenToBlocks([resizedPart(disk), ...(await lostExtents(shelf, disk))], granuleBytes, sizeBytes);
  while (extents.length > MAX_EXTENTS) extents = widenToBlocks(extents, (granuleBytes *= 2), sizeBytes);
  return extents;
}

function resizedPart({ plan, base, blockSize }: HeadDisk): Extent {
  const kept = Math.min(plan.sizeBytes, base!.sizeBytes);
  if (plan.sizeBytes === base!.sizeBytes) return { offset: 0, length: 0 };
  const offset = Math.floor(kept / blockSize) * blockSize;
  return { offset, length: plan.sizeBytes - offset };
}

/** Whether nothing that the disk shares with its base was lost, as far as is known by now. */
export const isBaseSound = ({ soundMaps, damages }: Pick<Shelf, 'soundMaps' | 'damages'>, disk: HeadDisk): boolean =>
  disk.base !== null && soundMaps.get(nameOfShared(disk)) === damages.count();

const nameOfShared = ({ base, plan }: HeadDisk): string => `${base!.root} ${Math.min(base!.sizeBytes, plan.sizeBytes)}`;

async function lostExtents(shelf: Shelf, disk: HeadDisk): Promise<Extent[]> {
  const { pages, index, soundMaps, damages } = shelf;
  if (isBaseSound(shelf, disk)) return [];
  const map = baseMapOf(disk)!;
  const known = damages.count();
  const { blockSize } = disk;
  const leafCount = leafCountOf(Math.min(map.sizeBytes, disk.plan.sizeBytes), blockSize);
  let lost: Extent[] = [];
  for (let leaf = 0; leaf < leafCount; leaf += 1) {
    const page = await soundLeaf(pages, map, leaf);
    const first = leaf * PAGE_ENTRIES;
    for (let block = first; block < first + PAGE_ENTRIES && hasBaseBlock(disk, block); block += 1) {
      const length = blockLengthOf(block, map.sizeBytes, blockSize);
      if (page && resolves(index, entryOf(page, block - first), length)) continue;
      lost.push({ offset: block * blockSize, length });
    }
    // A repository that lost nearly everything must not fill the memory with what it lost.
    if (lost.length > 64 * MAX_EXTENTS) lost = union(lost);
  }
  if (soundMaps.size >= MAX_SOUND_MAPS) soundMaps.clear();
  if (lost.length === 0) soundMaps.set(nameOfShared(disk), known);
  return lost;
}

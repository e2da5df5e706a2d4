/** The base map as the disk being written sees it: an entry counts only where the block has the same length in both. */
import { blockCountOf } from '../../../schema/domain/extents.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import type { DigestIndex } from './digest-index.ts';
import { soundLeaf, type DiskMap, type PageReader } from './page-reader.ts';

export const baseMapOf = (disk: HeadDisk): DiskMap | null =>
  disk.base === null ? null : { ...disk.base, blockSize: disk.blockSize };

/** Whether the base has a block at this position that may stand unchanged in the new map. */
export function hasBaseBlock(disk: HeadDisk, block: number): boolean {
  if (disk.base === null) return false;
  const length = blockLengthOf(block, disk.plan.sizeBytes, disk.blockSize);
  return length > 0 && length === blockLengthOf(block, disk.base.sizeBytes, disk.blockSize);
}

/** Blocks that both have at the same place, from 0: `hasBaseBlock` of them, and of no others. */
export function commonBlocksOf({ plan, base, blockSize }: HeadDisk): number {
  if (base === null) return 0;
  if (base.sizeBytes === plan.sizeBytes) return blockCountOf(base.sizeBytes, blockSize);
  return Math.floor(Math.min(base.sizeBytes, plan.sizeBytes) / blockSize);
}

/** Entries of the base for blocks `first ... first + count - 1`; null where there is none to stand on, or none sound. */
export async function baseEntries(
  pages: PageReader,
  disk: HeadDisk,
  first: number,
  count: number,
): Promise<(Uint8Array | null)[]> {
  const map = baseMapOf(disk);
  const entries: (Uint8Array | null)[] = [];
  let page: Uint8Array | null = null;
  for (let block = first; block < first + count; block += 1) {
    const known = map !== null && hasBaseBlock(disk, block);
    if (known && (block === first || block % PAGE_ENTRIES === 0))
      page = await soundLeaf(pages, map, Math.floor(block / PAGE_ENTRIES));
    entries.push(known && page ? entryOf(page, block % PAGE_ENTRIES) : null);
  }
  return entries;
}

/** Whether the repository has a record of `length` bytes for an entry of a map. */
export const resolves = (index: DigestIndex, entry: Uint8Array, length: number): boolean =>
  index.holds(entry, length) || isZero(entry);

/** Block map pages: shape of the tree (FORMAT.md, "Map"). */
import { blockCountOf } from '../domain/extents.ts';
import { DIGEST_BYTES, PAGE_BYTES, PAGE_ENTRIES } from './limits.ts';

/** Root of a disk of no blocks. */
export const EMPTY_ROOT = '0'.repeat(64);
export const ZERO_ENTRY: Uint8Array = new Uint8Array(DIGEST_BYTES);

/** Levels of pages above `blockCount` blocks; 0 for none, 1 = the root is a leaf. */
export function heightOf(blockCount: number): number {
  let height = 0;
  for (let count = blockCount; height === 0 ? count > 0 : count > 1; height += 1)
    count = Math.ceil(count / PAGE_ENTRIES);
  return height;
}

export const leafCountOf = (sizeBytes: number, blockSize: number): number =>
  Math.ceil(blockCountOf(sizeBytes, blockSize) / PAGE_ENTRIES);

/** True length of a block, bytes: the last one may be short. */
export const blockLengthOf = (block: number, sizeBytes: number, blockSize: number): number =>
  Math.max(0, Math.min(blockSize, sizeBytes - block * blockSize));

export const isPageLength = (bytes: number): boolean => bytes > 0 && bytes <= PAGE_BYTES && bytes % DIGEST_BYTES === 0;

/** Entry `index` of a page, a view of 32 bytes. */
export const entryOf = (page: Uint8Array, index: number): Uint8Array =>
  page.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);

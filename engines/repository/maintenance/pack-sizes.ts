/** How much goes into a pack that a collection writes. */
import { DATA_PACK_TARGET_BYTES, PAGE_PACK_TARGET_BYTES } from '../../../schema/repository/limits.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';

export const TARGET_BYTES: Record<PackContents, number> = {
  blocks: DATA_PACK_TARGET_BYTES,
  pages: PAGE_PACK_TARGET_BYTES,
};

/**
 * Records listed of packs that wait for their copies to be durable, at most: each takes some hundred bytes of memory. Of
 * blocks that shrank to little a new pack is closed early for it.
 */
export const MOST_LISTED_RECORDS = 4096;

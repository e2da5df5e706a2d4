/** Ranges of a disk, in bytes. Sorted, disjoint lists unless said otherwise. */

/** `[offset, offset + length)` of a disk, bytes. */
export type Extent = { offset: number; length: number };
export type AllocationState = 'data' | 'zero' | 'unallocated';
export type AllocatedExtent = Extent & { state: AllocationState };

export const endOf = (extent: Extent): number => extent.offset + extent.length;
export const totalBytes = (extents: readonly Extent[]): number => extents.reduce((sum, e) => sum + e.length, 0);

/** The common part, or null when there is none. */
export function intersect(a: Extent, b: Extent): Extent | null {
  const offset = Math.max(a.offset, b.offset);
  const end = Math.min(endOf(a), endOf(b));
  return end > offset ? { offset, length: end - offset } : null;
}

/** Sorts, joins what touches or overlaps, drops what is empty. */
export function union(extents: readonly Extent[]): Extent[] {
  const joined: Extent[] = [];
  const sorted = extents.filter((e) => e.length > 0).sort((a, b) => a.offset - b.offset);
  for (const extent of sorted) {
    const last = joined.at(-1);
    if (last && extent.offset <= endOf(last)) last.length = Math.max(endOf(last), endOf(extent)) - last.offset;
    else joined.push({ ...extent });
  }
  return joined;
}

/** Grows each extent to whole blocks, never past `sizeBytes`. */
export function widenToBlocks(extents: readonly Extent[], blockSize: number, sizeBytes: number): Extent[] {
  return union(
    extents.map((extent) => {
      const offset = Math.floor(extent.offset / blockSize) * blockSize;
      const end = Math.min(Math.ceil(endOf(extent) / blockSize) * blockSize, sizeBytes);
      return { offset, length: Math.max(0, end - offset) };
    }),
  );
}

/** The parts of sorted, disjoint `extents` that lie in `window`. */
export function clip(extents: readonly Extent[], window: Extent): Extent[] {
  return extents.map((extent) => intersect(extent, window)).filter((part) => part !== null);
}

/** Sorted, disjoint `extents` without what lies in `hole`. */
export function subtract(extents: readonly Extent[], hole: Extent): Extent[] {
  return extents.flatMap((extent) => {
    const before = { offset: extent.offset, length: Math.min(endOf(extent), hole.offset) - extent.offset };
    const from = Math.max(extent.offset, endOf(hole));
    const after = { offset: from, length: endOf(extent) - from };
    return intersect(extent, hole) ? [before, after].filter((part) => part.length > 0) : [extent];
  });
}

export const blockCountOf = (sizeBytes: number, blockSize: number): number => Math.ceil(sizeBytes / blockSize);

/** Transfer window: aligned 64 MiB of a disk, the unit of acknowledgement and resume. */
export const WINDOW_BYTES = 64 * 1024 * 1024;
export const windowCountOf = (sizeBytes: number): number => Math.ceil(sizeBytes / WINDOW_BYTES);

export function windowExtent(windowIndex: number, sizeBytes: number): Extent {
  const offset = windowIndex * WINDOW_BYTES;
  return { offset, length: Math.min(WINDOW_BYTES, sizeBytes - offset) };
}

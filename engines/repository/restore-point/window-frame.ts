/** A finished window, checked against base and index, as the ledger frame that makes it durable. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { WINDOW_BYTES, windowExtent } from '../../../schema/domain/extents.ts';
import type { FinishedWindow, SourceClass } from '../../../schema/domain/seams.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import type { ClassSums, LedgerEntry, LedgerRecord } from '../../../schema/repository/ledger.ts';
import { blockLengthOf } from '../../../schema/repository/map-page.ts';
import { hasBaseBlock, resolves } from './base-view.ts';
import type { DigestIndex } from './digest-index.ts';

const sumField = {
  'not-read': 'notReadBytes',
  unallocated: 'unallocatedBytes',
  zero: 'zeroBytes',
  data: 'dataBytes',
} as const satisfies Record<SourceClass, keyof ClassSums>;

export const noSums = (): ClassSums => ({ notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 });

/** First block and count of blocks of a window. PROTOCOL_ERROR when the disk has no such window. */
export function blocksOfWindow(disk: HeadDisk, windowIndex: number): { first: number; count: number } {
  const extent = windowExtent(windowIndex, disk.plan.sizeBytes);
  if (!Number.isSafeInteger(windowIndex) || windowIndex < 0 || extent.length <= 0)
    throw protocolError(disk, `there is no window ${windowIndex}`);
  return { first: (windowIndex * WINDOW_BYTES) / disk.blockSize, count: Math.ceil(extent.length / disk.blockSize) };
}

export const protocolError = (disk: HeadDisk, why: string): TidemarkError =>
  new TidemarkError('PROTOCOL_ERROR', `disk ${disk.plan.diskKey}: ${why}`, { diskKey: disk.plan.diskKey });

/** The base is there, but not whole: the disk has to be read in another way (invariant 11). */
export const baseLost = ({ plan, base }: HeadDisk, block: number): TidemarkError =>
  new TidemarkError(
    'TRACKING_LOST',
    `disk ${plan.diskKey}: block ${block} stands on restore point ${base!.restorePointId}, which has lost it`,
    { diskKey: plan.diskKey, block, base: base!.restorePointId },
  );

/**
 * `base`: entries of the window's blocks, from `baseEntries`. TRACKING_LOST: the base has lost a block that was not
 * read.
 */
export function frameOfWindow(
  disk: HeadDisk,
  fence: number,
  window: FinishedWindow,
  base: readonly (Uint8Array | null)[],
  index: DigestIndex,
): LedgerRecord {
  const { first, count } = blocksOfWindow(disk, window.windowIndex);
  if (window.classes.length !== count || window.digests.byteLength !== count * 32)
    throw protocolError(disk, `window ${window.windowIndex} has ${window.classes.length} classes for ${count} blocks`);
  const sums = noSums();
  const unchanged = noSums();
  const entries: LedgerEntry[] = [];
  for (const [at, sourceClass] of window.classes.entries()) {
    const length = blockLengthOf(first + at, disk.plan.sizeBytes, disk.blockSize);
    const digest = window.digests.subarray(at * 32, at * 32 + 32);
    const entry = entryOfBlock({ disk, at, first, length, sourceClass, digest, base: base[at] ?? null, index });
    sums[sumField[sourceClass]] += length;
    if (entry) entries.push(entry);
    else unchanged[sumField[sourceClass]] += length;
  }
  checkDeclared(disk, window, sums);
  const { windowIndex: firstWindow } = window;
  const { number, binding } = disk;
  return {
    kind: 'window',
    disk: number,
    binding,
    fence,
    firstWindow,
    windowCount: 1,
    declared: sums,
    unchanged,
    entries,
  };
}

type BlockFacts = {
  disk: HeadDisk;
  at: number;
  first: number;
  length: number;
  sourceClass: SourceClass;
  digest: Uint8Array;
  base: Uint8Array | null;
  index: DigestIndex;
};

/** The ledger's entry, or null for a block that is unchanged. */
function entryOfBlock(facts: BlockFacts): LedgerEntry | null {
  const { disk, at, first, length, sourceClass, digest, base, index } = facts;
  const block = first + at;
  if (sourceClass === 'not-read') {
    if (!hasBaseBlock(disk, block))
      throw protocolError(disk, `block ${block} was not read, and there is no base for it`);
    if (base === null || !resolves(index, base, length)) throw baseLost(disk, block);
    return null;
  }
  if (sourceClass !== 'data') return base !== null && isZero(base) ? null : { block: at, kind: sourceClass };
  if (isZero(digest) || !resolves(index, digest, length))
    throw protocolError(disk, `block ${block} has no record of ${length} bytes in the repository`);
  return base !== null && Buffer.compare(base, digest) === 0 ? null : { block: at, kind: 'data', digest };
}

function checkDeclared(disk: HeadDisk, window: FinishedWindow, sums: ClassSums): void {
  for (const field of Object.values(sumField)) {
    if (window.declared[field] === sums[field]) continue;
    const counted = `${sums[field]} bytes, declared ${window.declared[field]}`;
    throw protocolError(disk, `window ${window.windowIndex}: ${field} are ${counted}`);
  }
}

/** Frame of windows of which nothing was read. */
export function frameOfUntouched(
  disk: HeadDisk,
  fence: number,
  firstWindow: number,
  windowCount: number,
): LedgerRecord {
  if (!Number.isSafeInteger(windowCount) || windowCount < 1)
    throw protocolError(disk, `${windowCount} windows untouched`);
  blocksOfWindow(disk, firstWindow);
  const lastWindow = firstWindow + windowCount - 1;
  const last = blocksOfWindow(disk, lastWindow);
  // Blocks before the last one are full in both disks if the last one has its like in the base.
  if (!hasBaseBlock(disk, last.first + last.count - 1))
    throw protocolError(disk, `window ${lastWindow} was not read, and there is no base for it`);
  const end = Math.min((lastWindow + 1) * WINDOW_BYTES, disk.plan.sizeBytes);
  const declared = { ...noSums(), notReadBytes: end - firstWindow * WINDOW_BYTES };
  const { number, binding } = disk;
  const fields = { disk: number, binding, fence, firstWindow, windowCount };
  return { kind: 'untouched', ...fields, declared, unchanged: { ...declared }, entries: [] };
}

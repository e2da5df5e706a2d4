/** The ledger's windows of a disk as the map is made from them, read by offset when they are needed. */
import { WINDOW_BYTES, windowExtent } from '../../../schema/domain/extents.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import type { ClassSums, LedgerEntry, LedgerRecord } from '../../../schema/repository/ledger.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { notConserved } from './block-account.ts';
import type { LedgerFile } from './ledger-file.ts';
import type { OpenDisk } from './open-point.ts';
import { noSums } from './window-frame.ts';

export type WindowView = {
  /** As the source declared them, and of those what equalled the base then. Bytes. */
  declared: ClassSums;
  unchanged: ClassSums;
  entries: readonly LedgerEntry[];
  /** Of a block of the disk; null for one that is unchanged. */
  entryOf(block: number): LedgerEntry | null;
};

export type WindowReader = {
  /** Windows of a leaf page, in order. NOT_CONSERVED when one is missing. */
  ofLeaf(leaf: number): Promise<WindowView[]>;
};

export function createWindowReader(ledger: Pick<LedgerFile, 'read'>, disk: OpenDisk): WindowReader {
  const { head, frames } = disk;
  const windowsPerLeaf = (PAGE_ENTRIES * head.blockSize) / WINDOW_BYTES;
  /** Windows of which nothing was read share a frame. */
  let last: { offset: number; record: LedgerRecord } | null = null;

  async function ofWindow(window: number): Promise<WindowView> {
    const offset = frames[window]!;
    if (offset < 0) throw notConserved(head, `window ${window} was not transferred`);
    if (last?.offset !== offset) last = { offset, record: await ledger.read(offset) };
    return viewOf(head, window, last.record);
  }

  return {
    ofLeaf: async (leaf) => {
      const first = leaf * windowsPerLeaf;
      const views: WindowView[] = [];
      for (let window = first; window < Math.min(first + windowsPerLeaf, frames.length); window += 1)
        views.push(await ofWindow(window));
      return views;
    },
  };
}

function viewOf(head: HeadDisk, window: number, record: LedgerRecord): WindowView {
  const covers = record.firstWindow <= window && window < record.firstWindow + record.windowCount;
  if (record.disk !== head.number || record.binding !== head.binding || !covers)
    throw notConserved(head, `the ledger has another window in place of window ${window}`);
  if (record.kind === 'untouched') return untouched(head, window);
  const firstBlock = (window * WINDOW_BYTES) / head.blockSize;
  const byBlock = new Map(record.entries.map((entry) => [firstBlock + entry.block, entry]));
  const { declared, unchanged, entries } = record;
  return { declared, unchanged, entries, entryOf: (block) => byBlock.get(block) ?? null };
}

/** A run's own sums are of all its windows; some of them may have been sent again since. */
function untouched({ plan }: HeadDisk, window: number): WindowView {
  const declared = { ...noSums(), notReadBytes: windowExtent(window, plan.sizeBytes).length };
  return { declared, unchanged: declared, entries: [], entryOf: () => null };
}

/** What of a window is read, and how it is cut: pure but for asking the reader about its extents. */
import {
  blockCountOf,
  clip,
  type Extent,
  intersect,
  union,
  widenToBlocks,
  windowCountOf,
  WINDOW_BYTES,
} from '../../../schema/domain/extents.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { DiskReader } from '../../../schema/domain/seams.ts';

/** Per block of a window. `read`: allocated, so its bytes decide between zero and data. */
export type BlockPlan = 'not-read' | 'unallocated' | 'zero' | 'read';
/** Blocks of one offer; at most `SEGMENT_BYTES` of them are read. Indices within the window. */
export type Segment = { firstBlock: number; plans: BlockPlan[] };
export const SEGMENT_BYTES = 4 * 1024 * 1024;
type Sizes = Pick<TransferAssignment, 'sizeBytes' | 'blockSize'>;

/** True byte range of a window's block: the last one of a disk may be short. */
export function blockExtent(window: Extent, block: number, { blockSize, sizeBytes }: Sizes): Extent {
  const offset = window.offset + block * blockSize;
  return { offset, length: Math.min(blockSize, sizeBytes - offset) };
}

async function collect(extents: AsyncIterable<Extent>): Promise<Extent[]> {
  const list: Extent[] = [];
  for await (const { offset, length } of extents) list.push({ offset, length });
  return list;
}

/** Everything for full and comparison; for CBT the changes and `alsoRead`, widened to blocks. */
export async function readSetOf(reader: DiskReader, assignment: TransferAssignment, within: Extent): Promise<Extent[]> {
  if (assignment.mode !== 'cbt') return [within];
  const changed = await collect(reader.changedExtents(within));
  const wanted = union([...changed, ...clip(assignment.alsoRead, within)]);
  return clip(widenToBlocks(wanted, assignment.blockSize, assignment.sizeBytes), within);
}

export async function planWindow(
  reader: DiskReader,
  assignment: TransferAssignment,
  window: Extent,
): Promise<BlockPlan[]> {
  const plans = Array.from({ length: blockCountOf(window.length, assignment.blockSize) }, (): BlockPlan => 'not-read');
  for (const part of await readSetOf(reader, assignment, window))
    await planExtent(reader, assignment, window, part, plans);
  return plans;
}

/** A block with any data is read; one without is zero, or unallocated when wholly so. */
async function planExtent(
  reader: DiskReader,
  { blockSize }: Sizes,
  window: Extent,
  part: Extent,
  plans: BlockPlan[],
): Promise<void> {
  for await (const extent of reader.allocatedExtents(part)) {
    const common = intersect(extent, part);
    if (!common) continue;
    const first = Math.floor((common.offset - window.offset) / blockSize);
    const last = Math.floor((common.offset + common.length - 1 - window.offset) / blockSize);
    const state = extent.state === 'data' ? 'read' : extent.state;
    for (let block = first; block <= last; block += 1) plans[block] = joined(plans[block]!, state);
  }
}

function joined(before: BlockPlan, state: BlockPlan): BlockPlan {
  if (before === 'not-read' || before === state) return state;
  return before === 'read' || state === 'read' ? 'read' : 'zero';
}

/** Cuts a window so that each segment reads at most `SEGMENT_BYTES`; blocks that are not read cost nothing. */
export function* segmentsOf(plans: readonly BlockPlan[], blockSize: number): Generator<Segment> {
  let segment: Segment = { firstBlock: 0, plans: [] };
  let bytes = 0;
  for (const [block, plan] of plans.entries()) {
    const cost = plan === 'read' ? blockSize : 0;
    if (bytes + cost > SEGMENT_BYTES) {
      yield segment;
      segment = { firstBlock: block, plans: [] };
      bytes = 0;
    }
    segment.plans.push(plan);
    bytes += cost;
  }
  if (segment.plans.length > 0) yield segment;
}

/** One bit per window that has something in the read set. Asks over the whole disk; block status costs no reading. */
export async function touchedWindows(reader: DiskReader, assignment: TransferAssignment): Promise<Uint8Array> {
  const bits = new Uint8Array(Math.ceil(windowCountOf(assignment.sizeBytes) / 8));
  const mark = ({ offset, length }: Extent): void => {
    if (length === 0) return;
    const last = Math.floor((offset + length - 1) / WINDOW_BYTES);
    for (let window = Math.floor(offset / WINDOW_BYTES); window <= last; window += 1)
      bits[window >> 3]! |= 1 << (window & 7);
  };
  assignment.alsoRead.forEach(mark);
  const step = 64 * 1024 * 1024 * 1024;
  for (let offset = 0; offset < assignment.sizeBytes; offset += step) {
    const of = { offset, length: Math.min(step, assignment.sizeBytes - offset) };
    for await (const extent of reader.changedExtents(of)) mark(extent);
  }
  return bits;
}

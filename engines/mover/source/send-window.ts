/**
 * One window from reader to socket. Memory of a lane: `SEGMENTS_IN_WORK` buffers of `SEGMENT_BYTES`, one payload per
 * segment in compression, and what the target's credit lets the socket hold; none of it grows with the disk.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { type Extent, windowExtent } from '../../../schema/domain/extents.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { DiskReader, SourceClass } from '../../../schema/domain/seams.ts';
import type { WindowEnd } from '../../../schema/wire/messages.ts';
import { digestOf, type encodeBlock, isZeroBlock } from '../block-codec.ts';
import type { LaneClock } from '../stage-clock.ts';
import { runSideBySide } from '../waiting.ts';
import type { SourceConnection, WantedBlock } from './source-connection.ts';
import { blockExtent, planWindow, type Segment, SEGMENT_BYTES, segmentsOf } from './window-plan.ts';

export const SEGMENTS_IN_WORK = 4;
export type WaitsFor = 'source' | 'target' | `throttling (${string})`;

/** Buffers of a lane, shared by all its transfers: a lane works on one window at a time. */
export class SegmentBuffers {
  readonly #free: Buffer[] = [];
  take = (): Buffer => this.#free.pop() ?? Buffer.allocUnsafeSlow(SEGMENT_BYTES);
  give = (buffer: Buffer): void => void this.#free.push(buffer);
}

export type WindowWork = {
  reader: DiskReader;
  connection: SourceConnection;
  assignment: TransferAssignment;
  window: number;
  buffers: SegmentBuffers;
  signal: AbortSignal;
  clock: LaneClock;
  encode: typeof encodeBlock;
  /** Bytes since the last call. */
  onProgress(p: { readBytes: number; sentBytes: number; doneBytes: number; waitsFor: WaitsFor }): void;
};

const sumNames = {
  'not-read': 'notReadBytes',
  unallocated: 'unallocatedBytes',
  zero: 'zeroBytes',
  data: 'dataBytes',
} as const satisfies Record<SourceClass, keyof WindowEnd['sums']>;

/** Resolves when the target has acknowledged the window. */
export async function sendWindow(work: WindowWork): Promise<void> {
  const extent = windowExtent(work.window, work.assignment.sizeBytes);
  const sums = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 };
  const digests = new Map<number, Buffer>();
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'source' });
  const plans = await work.clock.spend('source', () => planWindow(work.reader, work.assignment, extent));
  const resending = resender(work, extent, digests);
  work.connection.onWant = resending.want;
  work.connection.onLimit = () => tellLimit(work);
  await runSideBySide(segmentsOf(plans, work.assignment.blockSize), SEGMENTS_IN_WORK, async (segment) => {
    const buffer = work.buffers.take();
    try {
      await sendSegment(work, extent, segment, buffer, { sums, digests });
    } finally {
      work.buffers.give(buffer);
    }
  });
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
  const ended = (): Promise<number> => Promise.race([work.connection.endWindow(work.window, sums), resending.failed]);
  work.clock.acknowledged(await work.clock.spend('away', ended));
  work.connection.onWant = null;
}

type Account = { sums: WindowEnd['sums']; digests: Map<number, Buffer> };

async function sendSegment(
  work: WindowWork,
  window: Extent,
  segment: Segment,
  buffer: Buffer,
  account: Account,
): Promise<void> {
  const { clock } = work;
  const blocks = await clock.spend('source', () => readSegment(work, window, segment, buffer));
  const { classes, digests, doneBytes } = clock.compute(() => classify(work, window, segment, blocks, account));
  const { firstBlock } = segment;
  const offer = { window: work.window, firstBlock, classes, digests: Buffer.concat(digests) };
  const answers = await clock.spend('away', () => work.connection.offer(offer));
  for (const [index, answer] of answers.entries())
    if (answer === 'want') await sendBlock(work, firstBlock + index, blocks.get(index));
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes, waitsFor: 'source' });
}

/** Zero or data, and the digests of what is data. */
function classify(
  { assignment }: WindowWork,
  window: Extent,
  segment: Segment,
  blocks: ReadonlyMap<number, Buffer>,
  account: Account,
): { classes: SourceClass[]; digests: Buffer[]; doneBytes: number } {
  const classes: SourceClass[] = [];
  const digests: Buffer[] = [];
  let doneBytes = 0;
  for (const [index, plan] of segment.plans.entries()) {
    const bytes = blocks.get(index);
    const kind = plan !== 'read' ? plan : isZeroBlock(bytes!) ? 'zero' : 'data';
    classes.push(kind);
    const { length } = blockExtent(window, segment.firstBlock + index, assignment);
    account.sums[sumNames[kind]] += length;
    doneBytes += length;
    if (kind !== 'data') continue;
    const digest = digestOf(bytes!);
    digests.push(digest);
    account.digests.set(segment.firstBlock + index, digest);
  }
  return { classes, digests, doneBytes };
}

/** Reads runs of neighbouring blocks at once. Block index within the segment to its bytes in `buffer`. */
async function readSegment(
  work: WindowWork,
  window: Extent,
  segment: Segment,
  buffer: Buffer,
): Promise<Map<number, Buffer>> {
  const blocks = new Map<number, Buffer>();
  const runs: { of: Extent; into: Buffer }[] = [];
  let used = 0;
  for (const [index, plan] of segment.plans.entries()) {
    if (plan !== 'read') continue;
    const of = blockExtent(window, segment.firstBlock + index, work.assignment);
    blocks.set(index, buffer.subarray(used, used + of.length));
    const last = runs.at(-1);
    if (last && last.of.offset + last.of.length === of.offset) {
      last.of.length += of.length;
      last.into = buffer.subarray(used - last.into.length, used + of.length);
    } else runs.push({ of, into: buffer.subarray(used, used + of.length) });
    used += of.length;
  }
  for (const { of, into } of runs) await work.reader.read(of, into, work.signal);
  work.onProgress({ readBytes: used, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
  return blocks;
}

const waitsForOf = ({ limit }: SourceConnection): WaitsFor => (limit === null ? 'target' : `throttling (${limit})`);

/** Before anything that may wait for it, and whenever it changes: a rate may be low. */
function tellLimit(work: WindowWork): void {
  if (work.connection.limit === null) return;
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: waitsForOf(work.connection) });
}

async function sendBlock(work: WindowWork, block: number, bytes: Buffer | undefined): Promise<void> {
  if (!bytes)
    throw new TidemarkError(
      'PROTOCOL_ERROR',
      `target wants block ${block} of window ${work.window}, which has no data`,
      { field: 'ANSWER answer' },
    );
  const { clock, connection, window, encode } = work;
  const { codec, payload } = clock.compute(() => encode(work.assignment.codec, bytes));
  const head = { window, block, codec, rawLength: bytes.length };
  tellLimit(work);
  await clock.spend('away', () => connection.sendData(head, payload, (waiting) => clock.holdBack('away', waiting)));
  work.onProgress({ readBytes: 0, sentBytes: payload.length, doneBytes: 0, waitsFor: waitsForOf(connection) });
}

/**
 * Sends blocks the target asks for again, one after another. They are read again: holding a window's blocks until its
 * acknowledgement would cost 64 MiB per lane for what hardly ever happens.
 */
function resender(work: WindowWork, window: Extent, digests: Map<number, Buffer>) {
  let chain = Promise.resolve();
  let fail!: (error: unknown) => void;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined);
  const again = async (block: number): Promise<void> => {
    const of = blockExtent(window, block, work.assignment);
    const bytes = Buffer.allocUnsafeSlow(of.length);
    await work.clock.spend('source', () => work.reader.read(of, bytes, work.signal));
    work.onProgress({ readBytes: of.length, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
    if (digestOf(bytes).equals(digests.get(block) ?? Buffer.alloc(0))) return sendBlock(work, block, bytes);
    throw new TidemarkError(
      'CHECKPOINT_LOST',
      `disk ${work.assignment.diskKey} changed while it was read, at byte ${of.offset}`,
      { diskKey: work.assignment.diskKey },
    );
  };
  const want = ({ window: wanted, block }: WantedBlock): void => {
    if (wanted !== work.window || !digests.has(block))
      throw new TidemarkError(
        'PROTOCOL_ERROR',
        `frame refused: WANT block ${block} of window ${wanted} was not offered`,
        { field: 'WANT block' },
      );
    chain = chain.then(() => again(block)).catch(fail);
  };
  return { want, failed };
}

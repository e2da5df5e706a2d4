/**
 * One window from reader to socket. Memory of a lane: `MOST_PER_LANE` buffers of `SEGMENT_BYTES`, one payload per
 * segment in compression, and what the target's credit lets the socket hold; none of it grows with the disk.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { type Extent, windowExtent } from '../../../schema/domain/extents.ts';
import { releaseMemory } from '../../../schema/domain/memory.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { DiskReader, SourceClass } from '../../../schema/domain/seams.ts';
import type { WindowEnd } from '../../../schema/wire/messages.ts';
import { digestOf, type encodeBlock, isZeroBlock } from '../block-codec.ts';
import type { HoldBack, LaneClock } from '../stage-clock.ts';
import { runSideBySide } from '../waiting.ts';
import type { LevelChoice } from './level-choice.ts';
import { MOST_PER_LANE } from './read-depth.ts';
import type { SourceConnection, WantedBlock } from './source-connection.ts';
import { blockExtent, type BlockPlan, planWindow, type Segment, SEGMENT_BYTES, segmentsOf } from './window-plan.ts';

const HELD_BACK_TOLD_MS = 1000;
export type WaitsFor = 'source' | 'target' | `throttling (${string})`;

/** So large that the system takes it back when it is released: smaller ones glibc would keep. */
const SLAB_BYTES = MOST_PER_LANE * SEGMENT_BYTES;

/**
 * Buffers of a lane, shared by all its transfers: a lane works on one window at a time. Those used last come first, so that
 * only as many take memory as are in use at once.
 */
export class SegmentBuffers {
  #slab: Buffer | null = null;
  readonly #free: Buffer[] = [];
  #inUse = 0;

  take(): Buffer {
    this.#slab ??= this.#cut();
    this.#inUse += 1;
    return this.#free.pop()!;
  }

  give(buffer: Buffer): void {
    this.#inUse -= 1;
    this.#free.push(buffer);
  }

  /** Their memory, unless a window has some of them still. */
  release(): void {
    if (this.#slab === null || this.#inUse > 0) return;
    this.#free.length = 0;
    releaseMemory(this.#slab);
    this.#slab = null;
  }

  #cut(): Buffer {
    const slab = Buffer.allocUnsafeSlow(SLAB_BYTES);
    for (let at = 0; at < SLAB_BYTES; at += SEGMENT_BYTES) this.#free.push(slab.subarray(at, at + SEGMENT_BYTES));
    return slab;
  }
}

export type WindowWork = {
  reader: DiskReader;
  connection: SourceConnection;
  assignment: TransferAssignment;
  window: number;
  /** Segments of it in work at once. */
  width: number;
  buffers: SegmentBuffers;
  levels: LevelChoice;
  signal: AbortSignal;
  clock: LaneClock;
  encode: typeof encodeBlock;
  /** Bytes since the last call. `doneBytes`: of the disk, of which nothing is left to send. */
  onProgress(p: { readBytes: number; sentBytes: number; doneBytes: number; waitsFor: WaitsFor }): void;
};

const sumNames = {
  'not-read': 'notReadBytes',
  unallocated: 'unallocatedBytes',
  zero: 'zeroBytes',
  data: 'dataBytes',
} as const satisfies Record<SourceClass, keyof WindowEnd['sums']>;

/** `digests`: of blocks of class data, by their index in the window. `wantedBytes`: of blocks that the target asked for. */
type Account = { sums: WindowEnd['sums']; digests: Map<number, Buffer>; wantedBytes: number };
export const newAccount = (): Account => ({
  sums: { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 },
  digests: new Map(),
  wantedBytes: 0,
});

/** Resolves when the target has acknowledged the window: with the bytes of it that were wanted. */
export async function sendWindow(work: WindowWork): Promise<number> {
  const extent = windowExtent(work.window, work.assignment.sizeBytes);
  const account = newAccount();
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'source' });
  const plans = await work.clock.spend('source', () => planWindow(work.reader, work.assignment, extent));
  const resending = resender(work, extent, account.digests);
  work.connection.onWant = resending.want;
  work.connection.onLimit = () => tellLimit(work);
  await forEachSegment(work, plans, (segment, buffer) => sendSegment(work, extent, segment, buffer, account));
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
  await endWindow(work, account, resending);
  return account.wantedBytes;
}

/** Some at a time, each with a buffer of the lane's. */
export function forEachSegment(
  { buffers, assignment, width }: WindowWork,
  plans: readonly BlockPlan[],
  use: (segment: Segment, buffer: Buffer) => Promise<void>,
): Promise<void> {
  return runSideBySide(segmentsOf(plans, assignment.blockSize), width, async (segment) => {
    const buffer = buffers.take();
    try {
      await use(segment, buffer);
    } finally {
      buffers.give(buffer);
    }
  });
}

/** Resolves when the target has acknowledged the window: what it wants again until then is sent again. */
export async function endWindow(
  { clock, levels, connection, window }: WindowWork,
  { sums }: Account,
  { failed }: Pick<ReturnType<typeof resender>, 'failed'>,
): Promise<void> {
  levels.afterWindow(clock.times);
  const ended = (): Promise<number> => Promise.race([connection.endWindow(window, sums), failed]);
  clock.acknowledged(await clock.spend('away', ended));
  connection.onWant = null;
}

async function sendSegment(
  work: WindowWork,
  window: Extent,
  segment: Segment,
  buffer: Buffer,
  account: Account,
): Promise<void> {
  const { blocks, classes, digests, lengthBytes } = await hashSegment(work, window, segment, buffer, account);
  const { firstBlock } = segment;
  const offer = { window: work.window, firstBlock, classes, digests: Buffer.concat(digests) };
  const answers = await work.clock.spend('away', () => work.connection.offer(offer));
  for (const [index, answer] of answers.entries()) {
    if (answer !== 'want') continue;
    const bytes = blocks.get(index);
    account.wantedBytes += bytes?.length ?? 0;
    await sendBlock(work, firstBlock + index, bytes);
  }
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: lengthBytes, waitsFor: 'source' });
}

type Classified = { classes: SourceClass[]; digests: Buffer[]; lengthBytes: number };
type Hashed = Classified & { blocks: Map<number, Buffer> };

/** Reads a segment and says of each of its blocks what it is; sums and digests go into the account, too. */
export async function hashSegment(
  work: WindowWork,
  window: Extent,
  segment: Segment,
  buffer: Buffer,
  account: Account,
): Promise<Hashed> {
  const blocks = await work.clock.spend('source', () => readSegment(work, window, segment, buffer));
  return { blocks, ...work.clock.compute(() => classify(work, window, segment, blocks, account)) };
}

/** Zero or data, and the digests of what is data. */
function classify(
  { assignment }: WindowWork,
  window: Extent,
  segment: Segment,
  blocks: ReadonlyMap<number, Buffer>,
  account: Account,
): Classified {
  const classes: SourceClass[] = [];
  const digests: Buffer[] = [];
  let lengthBytes = 0;
  for (const [index, plan] of segment.plans.entries()) {
    const bytes = blocks.get(index);
    const kind = plan !== 'read' ? plan : isZeroBlock(bytes!) ? 'zero' : 'data';
    classes.push(kind);
    const { length } = blockExtent(window, segment.firstBlock + index, assignment);
    account.sums[sumNames[kind]] += length;
    lengthBytes += length;
    if (kind !== 'data') continue;
    const digest = digestOf(bytes!);
    digests.push(digest);
    account.digests.set(segment.firstBlock + index, digest);
  }
  return { classes, digests, lengthBytes };
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

export const waitsForOf = ({ limit }: SourceConnection): WaitsFor =>
  limit === null ? 'target' : `throttling (${limit})`;

/** Before anything that may wait for it, and whenever it changes: a rate may be low. */
function tellLimit(work: WindowWork): void {
  if (work.connection.limit === null) return;
  work.onProgress({ readBytes: 0, sentBytes: 0, doneBytes: 0, waitsFor: waitsForOf(work.connection) });
}

/** While a rate lets a payload leave in pieces: that they do is told now and then. */
function heldBack(work: WindowWork): HoldBack {
  let toldMs = performance.now();
  return async (waiting) => {
    const result = await work.clock.holdBack('away', waiting);
    const nowMs = performance.now();
    if (nowMs - toldMs >= HELD_BACK_TOLD_MS) {
      toldMs = nowMs;
      tellLimit(work);
    }
    return result;
  };
}

async function sendBlock(work: WindowWork, block: number, bytes: Buffer | undefined): Promise<void> {
  if (!bytes)
    throw new TidemarkError(
      'PROTOCOL_ERROR',
      `target wants block ${block} of window ${work.window}, which has no data`,
      { field: 'ANSWER answer' },
    );
  const { clock, levels, connection, window, encode } = work;
  const { codec, payload } = clock.compute(() => encode(levels.level, bytes));
  const head = { window, block, codec, rawLength: bytes.length };
  const sentBytes = payload.length;
  tellLimit(work);
  const send = (): Promise<void> => connection.sendData(head, payload, heldBack(work));
  await clock.spend('away', send);
  if (payload !== bytes) releaseMemory(payload);
  work.onProgress({ readBytes: 0, sentBytes, doneBytes: 0, waitsFor: waitsForOf(connection) });
}

/** Reads a block once more and sends it. CHECKPOINT_LOST: it is not what was offered. */
export async function sendAgain(
  work: WindowWork,
  window: Extent,
  digests: ReadonlyMap<number, Buffer>,
  block: number,
): Promise<void> {
  if (!digests.has(block)) return sendBlock(work, block, undefined);
  const of = blockExtent(window, block, work.assignment);
  const bytes = Buffer.allocUnsafeSlow(of.length);
  await work.clock.spend('source', () => work.reader.read(of, bytes, work.signal));
  work.onProgress({ readBytes: of.length, sentBytes: 0, doneBytes: 0, waitsFor: 'target' });
  if (digestOf(bytes).equals(digests.get(block)!)) return sendBlock(work, block, bytes);
  throw new TidemarkError(
    'CHECKPOINT_LOST',
    `disk ${work.assignment.diskKey} changed while it was read, at byte ${of.offset}`,
    { diskKey: work.assignment.diskKey },
  );
}

/**
 * Sends blocks the target asks for again, one after another. They are read again: holding a window's blocks until its
 * acknowledgement would cost 64 MiB per lane for what hardly ever happens.
 */
export function resender(work: WindowWork, window: Extent, digests: ReadonlyMap<number, Buffer>) {
  let chain = Promise.resolve();
  let fail!: (error: unknown) => void;
  const failed = new Promise<never>((_, reject) => {
    fail = reject;
  });
  failed.catch(() => undefined);
  const want = ({ window: wanted, block }: WantedBlock): void => {
    if (wanted !== work.window || !digests.has(block))
      throw new TidemarkError(
        'PROTOCOL_ERROR',
        `frame refused: WANT block ${block} of window ${wanted} was not offered`,
        { field: 'WANT block' },
      );
    chain = chain.then(() => sendAgain(work, window, digests, block)).catch(fail);
  };
  return { want, failed };
}

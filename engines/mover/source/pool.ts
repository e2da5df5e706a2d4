/**
 * The source's lanes: threads shared by all disks of a proxy. Runs in the main thread, which never sees block bytes;
 * it hands windows to whichever lane is free, disks in turn.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TransferSummary } from '../../../schema/domain/restore-point.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { startLaneThread, type LaneThread } from '../lane-thread.ts';
import { Brakes } from './brakes.ts';
import type { ItemDone, LaneItem, LaneProgress, ReadEnd } from './lane.ts';
import { RunningTransfer } from './running-transfer.ts';
import type { TransferOrder } from './transfer-order.ts';

export type { TransferOrder, TransferProgress } from './transfer-order.ts';

export type SourcePool = {
  /**
   * Resolves when every window is acknowledged. Throws the target's refusal (FENCED, RESTORE_POINT_*, REPOSITORY_FULL, ...),
   * the reader's error, TRANSFER_FAILED after `patienceMs` without a target, or the signal's reason.
   */
  transfer(order: TransferOrder): Promise<TransferSummary>;
  /** Ends the threads; transfers in work fail with HOST_DRAINING. */
  close(): Promise<void>;
};

type Lane = { thread: LaneThread; busy: boolean; knows: Set<number>; index: number };

/** `laneEntry`: a module that calls `runSourceLane`; `laneData` is its `workerData`, plain. */
export type SourcePoolOptions = { laneCount: number; laneEntry: URL; laneData?: unknown; seams: Seams };

export function createSourcePool(options: SourcePoolOptions): SourcePool {
  return new Pool(options);
}

class Pool implements SourcePool {
  readonly #options: SourcePoolOptions;
  readonly #lanes: Lane[] = [];
  readonly #transfers = new Map<number, RunningTransfer>();
  readonly #brakes: Brakes;
  #nextId = 0;
  #closed = false;
  #pumpTimer: NodeJS.Timeout | null = null;

  constructor(options: SourcePoolOptions) {
    this.#options = options;
    this.#brakes = new Brakes(options.seams.clock);
    for (let index = 0; index < options.laneCount; index += 1) this.#lanes.push(this.#startLane(index));
  }

  async transfer(order: TransferOrder): Promise<TransferSummary> {
    order.signal.throwIfAborted();
    if (this.#closed) throw new TidemarkError('HOST_DRAINING', 'the lanes of this proxy are closed');
    const id = (this.#nextId += 1);
    const transfer = new RunningTransfer(id, order, this.#options.seams);
    const stop = (): void => transfer.fail(order.signal.reason);
    order.signal.addEventListener('abort', stop, { once: true });
    this.#transfers.set(id, transfer);
    this.#brakes.configure(order.access.brakes ?? []);
    this.#pump();
    try {
      return await transfer.finished;
    } finally {
      order.signal.removeEventListener('abort', stop);
      this.#transfers.delete(id);
      await this.#endOnLanes(id, transfer.failed);
    }
  }

  async close(): Promise<void> {
    this.#closed = true;
    if (this.#pumpTimer) clearTimeout(this.#pumpTimer);
    for (const transfer of this.#transfers.values())
      transfer.fail(new TidemarkError('HOST_DRAINING', 'the lanes of this proxy are closed'));
    await Promise.all(this.#lanes.map((lane) => lane.thread.terminate()));
  }

  #startLane(index: number): Lane {
    const thread = startLaneThread(this.#options.laneEntry, this.#options.laneData, {
      handlers: { beginRead: (id: number, bytes: number) => this.#beginRead(index, id, bytes) },
      onNotice: (name, value) => {
        if (name === 'endRead') this.#brakes.end(index, (value as ReadEnd).read, (value as ReadEnd).latencyMs);
        if (name === 'progress')
          this.#transfers.get((value as LaneProgress).transferId)?.progress(value as LaneProgress, index);
      },
      onExit: (error) => this.#replace(index, error),
    });
    return { thread, busy: false, knows: new Set(), index };
  }

  async #beginRead(lane: number, id: number, bytes: number): Promise<number> {
    const transfer = this.#transfers.get(id);
    const brakes = transfer?.spec.access.brakes ?? [];
    const reason = this.#brakes.reasonOf(brakes);
    if (reason !== null) transfer?.brake(reason);
    return await this.#brakes.begin(lane, brakes, bytes);
  }

  /** A lane that crashed is replaced; its window goes back when its call fails. A pause keeps a broken entry from spinning. */
  #replace(index: number, error: Error): void {
    this.#brakes.endLane(index);
    if (this.#closed) return;
    this.#options.seams.log.warn('source lane ended and is replaced', { lane: index, error: error.message });
    setTimeout(() => {
      if (this.#closed) return;
      this.#lanes[index] = this.#startLane(index);
      this.#pump();
    }, 100).unref();
    this.#lanes[index]!.busy = true;
  }

  /** Gives each free lane the next window of the next disk in turn. */
  #pump(): void {
    if (this.#closed) return;
    let earliest = Infinity;
    for (const lane of this.#lanes) {
      if (lane.busy) continue;
      for (const [id, transfer] of this.#transfers) {
        if (!lane.knows.has(id) && this.#lanesOf(id) >= transfer.laneLimit) continue;
        const wait = transfer.readyInMs();
        if (wait > 0) earliest = Math.min(earliest, wait);
        const item = wait > 0 ? null : transfer.take();
        if (!item) continue;
        // To the end of the line: disks take turns.
        this.#transfers.delete(id);
        this.#transfers.set(id, transfer);
        void this.#run(lane, transfer, item);
        break;
      }
    }
    this.#pumpLater(earliest);
  }

  #lanesOf(id: number): number {
    return this.#lanes.filter((lane) => lane.knows.has(id)).length;
  }

  #pumpLater(delayMs: number): void {
    if (this.#pumpTimer) clearTimeout(this.#pumpTimer);
    this.#pumpTimer = delayMs === Infinity ? null : setTimeout(() => this.#pump(), delayMs);
  }

  async #run(lane: Lane, transfer: RunningTransfer, item: LaneItem): Promise<void> {
    lane.busy = true;
    const { calls } = lane.thread;
    try {
      if (!lane.knows.has(transfer.id)) {
        lane.knows.add(transfer.id);
        await calls.call('begin', transfer.spec);
      }
      transfer.done(item, await calls.call<ItemDone>('run', transfer.id, item), lane.index);
    } catch (error) {
      transfer.lost(item, error, lane.index);
    } finally {
      // A lane that crashed gets no more windows: another takes its place.
      lane.busy = calls.failed;
      this.#pump();
    }
  }

  async #endOnLanes(id: number, aborted: boolean): Promise<void> {
    const knowing = this.#lanes.filter((lane) => lane.knows.delete(id));
    await Promise.allSettled(knowing.map((lane) => lane.thread.calls.call('end', id, aborted)));
  }
}

/**
 * Lane threads shared by all disks of a proxy, of a source or of restores. Runs in the main thread, which never sees block
 * bytes; it hands items of work to whichever lane is free, disks in turn. A lane's thread starts with its first item.
 */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import { type LaneThread, startLaneThread } from './lane-thread.ts';
import type { Handlers } from './port-calls.ts';
import { deferred } from './waiting.ts';

/** One disk on its way, cut into items. */
export type LaneWork<Item, Done, Summary> = {
  readonly id: number;
  /** Plain data: what a lane is told (`begin`) before its first item (`run`); `end` follows the last. */
  readonly spec: unknown;
  readonly finished: Promise<Summary>;
  /** Lanes that may work on it. */
  readonly laneLimit: number;
  readyInMs(): number;
  /** Null: nothing left to hand out (some may be in work). */
  take(): Item | null;
  done(item: Item, result: Done, lane: number): void;
  lost(item: Item, error: unknown, lane: number): void;
  /** The thread of a lane that knows it is gone; where that is more than the item it had. */
  laneLost?(error: Error): void;
  fail(error: unknown): void;
  /** Asked now and then, until it has ended: why it has stopped moving, or null. */
  stuck(): Error | null;
};

/**
 * `laneEntry`: a module that serves `begin`, `run` and `end`; `laneData` is its `workerData`, plain. `letGoMs`: how long a lane
 * may take to let go of what has failed, before another takes its place; default 2 min.
 */
export type LanePoolOptions = { laneCount: number; laneEntry: URL; laneData?: unknown; letGoMs?: number; seams: Seams };
type Lane = { index: number; thread: LaneThread | null; inWork: number; isGone: boolean; knows: Set<number> };
type Options = LanePoolOptions & {
  /** That a lane has in work at once, so that it need not wait when one of them does. */
  itemsPerLane: number;
  onNotice: (name: string, value: unknown, lane: number) => void;
  /** What the thread of a lane may call. */
  handlersOf?: (lane: number) => Handlers;
  /** The thread of a lane is gone. */
  onGone?: (lane: number) => void;
};

/** A pause keeps a broken entry from spinning. */
const REPLACE_AFTER_MS = 100;
const LOOK_MS = 1000;
/** Slow storage takes a while to close what was written; all disks of a lane are lost with it. */
const LET_GO_MS = 120_000;

const closedError = (): TidemarkError => new TidemarkError('HOST_DRAINING', 'the lanes of this proxy are closed');

export class LanePool<Item, Done, Work extends LaneWork<Item, Done, unknown>> {
  readonly #options: Options;
  readonly #lanes: Lane[];
  readonly #works = new Map<number, Work>();
  #closed = false;
  #pumpTimer: NodeJS.Timeout | null = null;

  constructor(options: Options) {
    this.#options = options;
    this.#lanes = Array.from({ length: options.laneCount }, (_, index) => newLane(index));
  }

  get(id: number): Work | undefined {
    return this.#works.get(id);
  }

  /** Settles as `work.finished` does, or with the signal's reason. Lanes know the work until `end`. */
  async run(work: Work, signal: AbortSignal): Promise<Awaited<Work['finished']>> {
    signal.throwIfAborted();
    if (this.#closed) throw closedError();
    this.#works.set(work.id, work);
    this.#pump();
    return (await this.#watched(work, signal, work.finished)) as Awaited<Work['finished']>;
  }

  /** After `run`: as `end`, then `last`. It is watched and stopped as in `run`, and then still to be ended. */
  async finish(work: Work, signal: AbortSignal, last: () => Promise<void>): Promise<void> {
    await this.#watched(work, signal, this.end(work.id, false).then(last));
  }

  /** As `going`; or it fails, with the signal's reason or since it stopped moving. */
  async #watched<T>(work: Work, signal: AbortSignal, going: Promise<T>): Promise<T> {
    const failed = deferred<never>();
    const fail = (error: unknown): void => {
      work.fail(error);
      failed.reject(error);
    };
    const stop = (): void => fail(signal.reason);
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    const looking = setInterval(() => {
      const error = work.stuck();
      if (error) fail(error);
    }, LOOK_MS);
    try {
      return await Promise.race([going, failed.promise]);
    } finally {
      clearInterval(looking);
      signal.removeEventListener('abort', stop);
    }
  }

  /** Nothing more of it is handed out. Rejects with what a lane that worked on it could not end. */
  async end(id: number, aborted: boolean): Promise<void> {
    const lanes = this.#lanes.filter(({ knows }) => knows.has(id));
    const ends = lanes.map((lane) => this.#endIn(lane, id, aborted));
    const settled = await Promise.allSettled(ends);
    this.#works.delete(id);
    const failed = settled.find((one) => one.status === 'rejected');
    if (failed) throw this.#closed ? closedError() : failed.reason;
  }

  /** What it could not end, it can still be told to let go of. */
  async #endIn({ thread, knows }: Lane, id: number, aborted: boolean): Promise<void> {
    const letGoMs = this.#options.letGoMs ?? LET_GO_MS;
    const giveUp = (): void => thread?.giveUp(`it has not let go of a disk for ${letGoMs / 1000} s`);
    const timer = aborted ? setTimeout(giveUp, letGoMs) : undefined;
    try {
      await thread?.calls.call('end', id, aborted);
      knows.delete(id);
    } finally {
      clearTimeout(timer);
      if (aborted) knows.delete(id);
    }
  }

  /** Ends the threads; works fail with HOST_DRAINING. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#pumpTimer) clearTimeout(this.#pumpTimer);
    for (const work of this.#works.values()) work.fail(closedError());
    await Promise.all(this.#lanes.map(async ({ thread }) => thread?.terminate()));
  }

  #threadOf(lane: Lane): LaneThread {
    const { laneEntry, laneData, onNotice, handlersOf } = this.#options;
    return (lane.thread ??= startLaneThread(laneEntry, laneData, {
      ...(handlersOf ? { handlers: handlersOf(lane.index) } : {}),
      onNotice: (name, value) => onNotice(name, value, lane.index),
      onExit: (error) => this.#replace(lane, error),
    }));
  }

  /** A lane that crashed is replaced; its item goes back when its call fails. */
  #replace(lane: Lane, error: Error): void {
    this.#options.onGone?.(lane.index);
    if (this.#closed) return;
    this.#options.seams.log.warn('lane ended and is replaced', { lane: lane.index, error: error.message });
    lane.isGone = true;
    for (const id of lane.knows) this.#works.get(id)?.laneLost?.(error);
    setTimeout(() => {
      if (this.#closed) return;
      this.#lanes[lane.index] = newLane(lane.index);
      this.#pump();
    }, REPLACE_AFTER_MS).unref();
  }

  /** Gives each free lane the next item of the next disk in turn; a second one only when all lanes have one. */
  #pump(): void {
    if (this.#closed) return;
    let earliest = Infinity;
    for (let most = 1; most <= this.#options.itemsPerLane; most += 1)
      for (const lane of this.#lanes)
        if (lane.inWork < most && !lane.isGone) earliest = Math.min(earliest, this.#giveTo(lane));
    this.#pumpLater(earliest);
  }

  /** When it is worth trying again, in milliseconds. */
  #giveTo(lane: Lane): number {
    let earliest = Infinity;
    for (const [id, work] of this.#works) {
      if (!lane.knows.has(id) && this.#lanesOf(id) >= work.laneLimit) continue;
      const wait = work.readyInMs();
      if (wait > 0) earliest = Math.min(earliest, wait);
      const item = wait > 0 ? null : work.take();
      if (!item) continue;
      // To the end of the line: disks take turns.
      this.#works.delete(id);
      this.#works.set(id, work);
      void this.#runItem(lane, work, item);
      break;
    }
    return earliest;
  }

  #lanesOf(id: number): number {
    return this.#lanes.filter(({ knows }) => knows.has(id)).length;
  }

  #pumpLater(delayMs: number): void {
    if (this.#pumpTimer) clearTimeout(this.#pumpTimer);
    this.#pumpTimer = delayMs === Infinity ? null : setTimeout(() => this.#pump(), delayMs);
  }

  async #runItem(lane: Lane, work: Work, item: Item): Promise<void> {
    lane.inWork += 1;
    const { calls } = this.#threadOf(lane);
    try {
      if (!lane.knows.has(work.id)) {
        lane.knows.add(work.id);
        await calls.call('begin', work.spec);
      }
      work.done(item, await calls.call<Done>('run', work.id, item), lane.index);
    } catch (error) {
      work.lost(item, error, lane.index);
    } finally {
      lane.inWork -= 1;
      // A lane that crashed gets no more items: another takes its place.
      lane.isGone ||= calls.failed;
      this.#pump();
    }
  }
}

const newLane = (index: number): Lane => ({
  index,
  thread: null,
  inWork: 0,
  isGone: false,
  knows: new Set(),
});

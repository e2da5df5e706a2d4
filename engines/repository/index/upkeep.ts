/**
 * What happens behind the questions, one step after another: packs that were closed are covered, the delta becomes a
 * segment, segments are merged, damaged ones are made up for from the packs. Nothing of it holds up a question for long,
 * and whatever fails is tried again later: until then the delta grows.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import type { Log } from '../../../schema/domain/seams.ts';
import type { PackListing, PackName } from '../pack/pack-reader.ts';
import { addRecords, type IndexState } from './index-state.ts';
import { nextMerge, type MergeRange } from './merge-policy.ts';
import { recordsOf } from './pack-records.ts';
import { SegmentDamaged } from './segment.ts';
import { Stopped, type SegmentStore } from './segment-store.ts';

/** Entries at which the delta becomes a segment: 20 MB. */
export const DELTA_ENTRIES = 262_144;
/** Packs read side by side. */
const READS_AT_ONCE = 16;
const PACKS_PER_MESSAGE = 1024;
/** How much smaller than the delta the smallest tier of segments is. */
const SMALLEST_TIER = 32;
/** A process may die at any time, and the next one has to read as many packs at once. */
const PACKS_WORTH_KEEPING = 1024;
/** At its end a process keeps what is more than this share of a delta. */
const SHARE_WORTH_KEEPING = 1 / 16;

/** The packs that the index is of. */
export type PackShelf = {
  /** The closed ones. */
  list(): Promise<PackName[]>;
  /** Null when it cannot be read: it is tried again by the next process. */
  read(name: PackName): Promise<PackListing | null>;
};

/** `deltaEntries`: at which the delta becomes a segment. */
export type UpkeepOptions = { shelf: PackShelf; log: Log; deltaEntries: number };

export class Upkeep {
  readonly #state: IndexState;
  readonly #store: SegmentStore;
  readonly #options: UpkeepOptions;
  /** The step under way and those that wait for it. */
  #tail: Promise<unknown> = Promise.resolve();
  #isScheduled = false;
  #isClosing = false;
  #isStopped = false;
  /** Something failed: nothing is tried until the delta has grown. */
  #isPutOff = false;
  #dueCount: number;
  /** Read from packs since a segment was tried to be made of them. */
  #completeRecords = 0;
  #duePacks = PACKS_WORTH_KEEPING;
  readonly #unreadable = new Set<string>();

  constructor(state: IndexState, store: SegmentStore, options: UpkeepOptions) {
    this.#state = state;
    this.#store = store;
    this.#options = options;
    this.#dueCount = options.deltaEntries;
  }

  /** Called often: looks whether there is something to do. */
  readonly changed = (): void => {
    if (this.#isScheduled || this.#isClosing || !this.#hasWork()) return;
    this.#isScheduled = true;
    void this.#step(async () => {
      this.#isScheduled = false;
      if (!this.#state.isWhole) await this.#readAnew();
      if (this.#isDue()) await this.#flush();
      for (let range = this.#nextMerge(); range; range = this.#nextMerge())
        await this.#store.merge(range, () => this.#isStopped);
    });
  };

  readonly broke = (error: unknown): void => {
    this.#options.log.error('the index is damaged: it is made anew from the packs', { error: String(error) });
    for (const segment of this.#state.segments) segment.release().catch(() => undefined);
    this.#state.segments = [];
    this.#state.covered.clear();
    this.#state.isWhole = false;
    this.changed();
  };

  /** Reads what of `closed` is not known. Throws what the medium refuses. */
  load(closed: readonly PackName[]): Promise<void> {
    const loading = this.#tail.then(() => this.#catchUp(closed));
    this.#tail = loading.catch(() => undefined);
    return loading;
  }

  /** Records of closed packs are in segments when it resolves, unless the folder refuses them. */
  flush(): Promise<void> {
    return this.#step(() => this.#flush());
  }

  /** Resolves when there is nothing to do. */
  async idle(): Promise<void> {
    for (let tail = null; tail !== this.#tail;) await (tail = this.#tail);
  }

  /** Merges are given up; what is worth it is kept. */
  async close(): Promise<void> {
    this.#isClosing = true;
    this.#isStopped = true;
    await this.idle();
    this.#isStopped = false;
    const { delta, isWhole } = this.#state;
    const worthKeeping = this.#options.deltaEntries * SHARE_WORTH_KEEPING;
    if (isWhole && (delta.count >= worthKeeping || this.#hasManyPacks())) await this.flush();
    for (const segment of this.#state.segments) await segment.release();
  }

  #isFull = (): boolean => this.#state.delta.count >= this.#dueCount;
  #uncoveredPacks = (): number => this.#state.packs.size - this.#state.covered.size;
  #hasManyPacks = (): boolean => this.#uncoveredPacks() >= this.#duePacks;
  #isDue = (): boolean => this.#isFull() || (this.#hasManyPacks() && !this.#isPutOff);
  #hasWork = (): boolean => !this.#state.isWhole || this.#isDue() || this.#nextMerge() !== null;

  #nextMerge(): MergeRange | null {
    if (this.#isPutOff) return null;
    return nextMerge(this.#state.segments, Math.ceil(this.#options.deltaEntries / SMALLEST_TIER));
  }

  #step(work: () => Promise<void>): Promise<void> {
    const step = this.#tail.then(work).catch((error: unknown) => this.#failed(error));
    this.#tail = step;
    return step;
  }

  #failed(error: unknown): void {
    if (error instanceof Stopped) return;
    if (error instanceof SegmentDamaged) {
      this.broke(error);
      return;
    }
    this.#isPutOff = true;
    this.#dueCount = this.#state.delta.count + Math.ceil(this.#options.deltaEntries / 4);
    this.#options.log.warn('the index was not kept, which is tried again later', { error: String(error) });
  }

  async #flush(): Promise<void> {
    await this.#catchUp(await this.#options.shelf.list());
    await this.#spill();
  }

  async #spill(): Promise<void> {
    this.#completeRecords = 0;
    await this.#store.spill();
    this.#isPutOff = false;
    // Beside what stays because its packs are open.
    this.#dueCount = this.#state.delta.count + this.#options.deltaEntries;
    this.#duePacks = this.#uncoveredPacks() + PACKS_WORTH_KEEPING;
  }

  async #readAnew(): Promise<void> {
    await this.#store.reset().catch((error: unknown) => this.#failed(error));
    await this.#catchUp(await this.#options.shelf.list());
    this.#state.isWhole = true;
  }

  async #catchUp(closed: readonly PackName[]): Promise<void> {
    const { shelf, log } = this.#options;
    const unknown = closed.filter(({ packId }) => this.#isUnknown(packId));
    for (let at = 0; at < unknown.length; at += READS_AT_ONCE) {
      if (this.#isStopped) throw new Stopped();
      const group = unknown.slice(at, at + READS_AT_ONCE);
      const listings = await Promise.all(group.map((name) => shelf.read(name)));
      for (const [i, listing] of listings.entries()) {
        this.#take(group[i]!.packId, listing);
        await nextTurn();
      }
      if (this.#completeRecords >= this.#options.deltaEntries)
        await this.#spill().catch((error: unknown) => this.#failed(error));
      if (at % PACKS_PER_MESSAGE === 0)
        log.info('reading packs into the index', { packs: at + group.length, of: unknown.length });
    }
  }

  #isUnknown(packId: string): boolean {
    const { packs, covered, complete, gone } = this.#state;
    const number = packs.find(packId);
    if (gone.has(packId) || this.#unreadable.has(packId)) return false;
    return number === undefined || !(covered.has(number) || complete.has(number));
  }

  #take(packId: string, listing: PackListing | null): void {
    if (!listing) this.#unreadable.add(packId);
    else if (!this.#state.gone.has(packId)) {
      addRecords(this.#state, recordsOf(listing));
      this.#completeRecords += listing.records.length;
      this.#state.complete.add(this.#state.packs.numberOf(packId));
    }
  }
}

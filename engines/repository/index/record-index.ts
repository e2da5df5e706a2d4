/**
 * Where each record is: id -> place. Sorted segments on disk, a delta in memory; a cache, made anew from the packs'
 * footers. It knows every copy of a record, so when one is lost another is answered.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { filterKeyOf } from './bloom-filter.ts';
import { decodeEntry, ENTRY_BYTES, isPageAt, packAt, rawLengthAt, type IndexEntry, type NewRecord } from './entry.ts';
import { readEntries, type EntryBatch } from './entry-batches.ts';
import { addRecords, dropPack, isSoundAt, isUncovered, newState, type IndexState } from './index-state.ts';
import type { DamagedPlace } from './packs.ts';

export type { IndexEntry, NewRecord } from './entry.ts';
export type { EntryBatch } from './entry-batches.ts';

/** Questions are answered at once, from memory or by a read of one page. INDEX_REBUILDING: not known at the moment. */
export type RecordIndex = {
  /** Of several copies the oldest that is sound, but a page before a block: stored raw, it serves as both. */
  lookup(id: Uint8Array): IndexEntry | null;
  /** Whether there is a record of that id and raw length; for many, cheaper than `lookup`. */
  holds(id: Uint8Array, rawLength: number): boolean;
  /** Records that are durable. A record that was moved: `apply` its new place, then `dropPacks` the old one, in one turn. */
  apply(records: readonly NewRecord[]): void;
  /** That place turned out to be damaged: it is not answered any more. Whoever opens the index hands them in again. */
  forget(place: DamagedPlace): void;
  /** How often something was forgotten in this process. */
  forgottenCount(): number;
  /** These packs are gone, as fast with many records as with few. What is applied for them later counts for nothing. */
  dropPacks(packs: Iterable<string>): void;
  /** A closed pack that was dropped is back; `records`: all of it. */
  returnPack(pack: string, records: readonly NewRecord[]): void;
  /** Exact: records of packs that are there, second copies and (until a merge) damaged ones included. */
  recordCount(): number;
  /**
   * Every sound record there is when it is first asked, in the order of ids; all copies of an id in one batch, the one that
   * `lookup` answers first. Reads in pieces, in the background. Those of packs that are dropped meanwhile may be missing.
   */
  entries(): AsyncGenerator<EntryBatch, void>;
};

export type IndexHooks = {
  /** Something was applied or dropped, or asked for while the index is not whole. */
  changed(): void;
  /** A segment cannot be read or is damaged. */
  broke(error: unknown): void;
};

const noHooks: IndexHooks = { changed: () => undefined, broke: () => undefined };

/** Without hooks: in memory only. */
export function createRecordIndex(state: IndexState = newState(), hooks: IndexHooks = noHooks): RecordIndex {
  const finder = new Finder(state, hooks);
  let forgottenCount = 0;

  function apply(records: readonly NewRecord[]): void {
    addRecords(state, records);
    hooks.changed();
  }

  return {
    lookup: (id) => {
      if (!finder.find(id)) return null;
      const pack = state.packs.nameOf(packAt(finder.found, 0));
      return decodeEntry(finder.found, 0, pack!);
    },
    holds: (id, rawLength) => finder.find(id) && rawLengthAt(finder.found, 0) === rawLength,
    apply,
    forget: (place) => {
      state.damaged.add(place);
      forgottenCount += 1;
    },
    forgottenCount: () => forgottenCount,
    dropPacks: (names) => {
      for (const name of names) dropPack(state, name);
      hooks.changed();
    },
    returnPack: (pack, records) => {
      state.gone.delete(pack);
      apply(records);
      const number = state.packs.numberOf(pack);
      if (!state.covered.has(number)) state.complete.add(number);
    },
    recordCount: () => {
      const inSegments = state.segments.reduce((sum, { entryCount, deadCount }) => sum + entryCount - deadCount, 0);
      return inSegments + state.delta.countOf((pack) => isUncovered(state, pack));
    },
    entries: async function* () {
      if (!state.isWhole) throw rebuilding(hooks);
      yield* readEntries(state, (error) => {
        hooks.broke(error);
        return rebuilding(hooks, error);
      });
    },
  };
}

function rebuilding(hooks: IndexHooks, cause?: unknown): TidemarkError {
  hooks.changed();
  return new TidemarkError('INDEX_REBUILDING', 'the index is being made anew from the packs', {}, cause);
}

/** Finds the copy of an id that is to be answered; it lies in `found` until the next search. */
class Finder {
  readonly found = Buffer.alloc(ENTRY_BYTES);
  readonly #state: IndexState;
  readonly #hooks: IndexHooks;
  #hasFound = false;

  constructor(state: IndexState, hooks: IndexHooks) {
    this.#state = state;
    this.#hooks = hooks;
  }

  find(id: Uint8Array): boolean {
    const { segments, delta } = this.#state;
    const key = filterKeyOf(id);
    this.#hasFound = false;
    try {
      for (const segment of segments) if (segment.filter.mayHold(key) && segment.visit(id, this.#see)) return true;
    } catch (error) {
      this.#hooks.broke(error);
      this.#hasFound = false;
    }
    if (delta.visit(id, this.#see)) return true;
    if (!this.#state.isWhole) throw rebuilding(this.#hooks);
    return this.#hasFound;
  }

  readonly #see = (bytes: Buffer, base: number): boolean => {
    if (!isSoundAt(this.#state, bytes, base)) return false;
    const isPage = isPageAt(bytes, base);
    if (this.#hasFound && !isPage) return false;
    for (let at = 0; at < ENTRY_BYTES; at += 1) this.found[at] = bytes[base + at]!;
    this.#hasFound = true;
    return isPage;
  };
}

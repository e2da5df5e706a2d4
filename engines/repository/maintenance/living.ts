/** What is living in one collection, as far as it was marked: by record id, in flat memory. */
import { LiveFilter } from './live-filter.ts';
import { TrashWatch } from './trash-watch.ts';

export class Living {
  readonly watch: TrashWatch;
  readonly #live: LiveFilter;
  readonly #locksNew: boolean;
  readonly #locked: LiveFilter | null;

  /**
   * `capacity`: records there are; `epoch`: so that each collection errs elsewhere; `locks`: whether restore points are
   * locked, and whether those are that are sealed from now on.
   */
  constructor(options: { capacity: number; epoch: number; locks: { old: boolean; new: boolean }; watch: TrashWatch }) {
    const { capacity, epoch, locks, watch } = options;
    this.#locksNew = locks.new;
    this.#live = new LiveFilter(capacity, 2 * epoch);
    this.#locked = locks.old || locks.new ? new LiveFilter(capacity, 2 * epoch + 1) : null;
    this.watch = watch;
  }

  /** Reached from a root: where it lies in the trash it is missing. */
  mark = (id: Uint8Array): void => {
    this.#live.add(id);
    this.watch.mark(id);
  };

  /** Somebody was told of it: that it is there, or that it is wanted. */
  touch = (id: Uint8Array): void => {
    this.#live.add(id);
    // What needs it may soon be locked.
    if (this.#locksNew) this.#locked?.add(id);
  };

  /** Needed by a restore point that is locked. */
  markLocked = (id: Uint8Array): void => {
    this.#locked?.add(id);
    this.mark(id);
  };

  /** False: nothing needs it. */
  isLive = (id: Uint8Array): boolean => this.#live.mayHold(id);
  isLocked = (id: Uint8Array): boolean => this.#locked !== null && this.#locked.mayHold(id) && this.isLive(id);
}

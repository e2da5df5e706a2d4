/** What is living in one collection, as far as it was marked: by record id, in flat memory. */
import { LiveFilter } from './live-filter.ts';
import { TrashWatch } from './trash-watch.ts';

export class Living {
  readonly watch: TrashWatch;
  readonly #live: LiveFilter;
  readonly #locked: LiveFilter | null;

  /** `capacity`: records there are; `epoch`: so that each collection errs elsewhere. */
  constructor(options: { capacity: number; epoch: number; withLocks: boolean; watch: TrashWatch }) {
    const { capacity, epoch, withLocks, watch } = options;
    this.#live = new LiveFilter(capacity, 2 * epoch);
    this.#locked = withLocks ? new LiveFilter(capacity, 2 * epoch + 1) : null;
    this.watch = watch;
  }

  mark = (id: Uint8Array): void => {
    this.#live.add(id);
    this.watch.mark(id);
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

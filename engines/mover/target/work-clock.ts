/**
 * How long a target was at work for a connection: while its lane's thread computed, for whichever connection, and while
 * the registrar or a sync was waited for on its own account. Overlapping counts once.
 */

/** One per lane: milliseconds its thread computed. */
export class LaneWork {
  #computedMs = 0;

  get computedMs(): number {
    return this.#computedMs;
  }

  compute<T>(work: () => T): T {
    const startedMs = performance.now();
    try {
      return work();
    } finally {
      this.#computedMs += performance.now() - startedMs;
    }
  }
}

/** One per connection. */
export class WorkClock {
  readonly #lane: LaneWork;
  #waits = 0;
  #waitedMs = 0;
  /** When the first of the waits going on began, and what the lane had computed by then. */
  #since = { atMs: 0, computedMs: 0 };
  #computedAtBegin = 0;
  /** Within waits: counted by them already. */
  #computedInWaits = 0;

  constructor(lane: LaneWork) {
    this.#lane = lane;
    this.begin();
  }

  /** From here on it counts. */
  begin(): void {
    this.#computedAtBegin = this.#lane.computedMs;
    this.#computedInWaits = 0;
    this.#waitedMs = 0;
    this.#since = { atMs: performance.now(), computedMs: this.#lane.computedMs };
  }

  async wait<T>(work: () => Promise<T>): Promise<T> {
    if (this.#waits === 0) this.#since = { atMs: performance.now(), computedMs: this.#lane.computedMs };
    this.#waits += 1;
    try {
      return await work();
    } finally {
      this.#waits -= 1;
      if (this.#waits === 0) {
        this.#waitedMs += performance.now() - this.#since.atMs;
        this.#computedInWaits += this.#lane.computedMs - this.#since.computedMs;
      }
    }
  }

  /** Whole milliseconds since `begin`; waits that go on do not count yet. */
  get busyMs(): number {
    const computedMs = this.#lane.computedMs - this.#computedAtBegin - this.#computedInWaits;
    return Math.round(this.#waitedMs + Math.max(0, computedMs));
  }
}

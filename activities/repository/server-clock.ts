/**
 * The clock of the Temporal server, which is not this host's: known from when the server scheduled what is done here, and
 * from there on by a clock that nobody can set.
 */
import type { Clock } from '../../schema/domain/seams.ts';

const LONGEST_WAIT_MS = 86_400_000;

export class ServerClock {
  readonly #clock: Pick<Clock, 'monotonic'>;
  #seen: { serverMs: number; atMs: number } | null = null;

  constructor(clock: Pick<Clock, 'monotonic'>) {
    this.#clock = clock;
  }

  /**
   * What may have waited before it came here says nothing that is not known already; but nothing waits for a day: then the
   * server's clock was set back.
   */
  observe({ currentAttemptScheduledTimestampMs: serverMs }: { currentAttemptScheduledTimestampMs: number }): void {
    const known = this.#read();
    if (known === null || serverMs > known || serverMs < known - LONGEST_WAIT_MS)
      this.#seen = { serverMs, atMs: this.#clock.monotonic() };
  }

  /** Milliseconds since the epoch; null before the server has sent anything. */
  now(): Promise<number | null> {
    return Promise.resolve(this.#read());
  }

  #read(): number | null {
    return this.#seen && this.#seen.serverMs + this.#clock.monotonic() - this.#seen.atMs;
  }
}

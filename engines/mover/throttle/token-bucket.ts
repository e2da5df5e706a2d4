/** Paces a sender: bytes leave at a rate that may change while somebody waits. */

/** How long what was not used may be made up for: no second sees more than 1.25 times the rate. */
const DEPTH_S = 0.25;
/** A timer that fires late costs nothing, one that fires early a turn. */
const LONGEST_WAIT_MS = 1000;

const LEAST_PIECE_BYTES = 4 * 1024;
const MOST_PIECE_BYTES = 64 * 1024;

export class TokenBucket {
  readonly #now: () => number;
  #rate = 0;
  #tokens = 0;
  #atMs: number;
  readonly #sleepers = new Set<() => void>();

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#atMs = now();
  }

  get isLimited(): boolean {
    return this.#rate > 0;
  }

  /** What is to be taken at once: small enough that each measurement of the shares sees several. */
  get pieceBytes(): number {
    if (!this.isLimited) return MOST_PIECE_BYTES;
    return Math.min(MOST_PIECE_BYTES, Math.max(LEAST_PIECE_BYTES, Math.ceil(this.#rate / 64)));
  }

  /** Whoever takes something now has to wait. */
  get isEmpty(): boolean {
    this.#refill();
    return this.isLimited && this.#tokens <= 0;
  }

  /** Bytes per second; 0: unlimited. Holds for who waits already. */
  set rate(bytesPerSecond: number) {
    this.#refill();
    this.#rate = bytesPerSecond;
    this.#tokens = Math.min(this.#tokens, bytesPerSecond * DEPTH_S);
    for (const wake of this.#sleepers) wake();
  }

  /**
   * Resolves when so many bytes may leave. More than a filled bucket holds are lent, and paid back by who comes next. Rejects
   * with the signal's reason.
   */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    for (;;) {
      signal?.throwIfAborted();
      if (!this.isLimited) return;
      this.#refill();
      const needed = Math.min(bytes, this.#rate * DEPTH_S);
      // Rounding must not make anybody wait for nothing.
      if (this.#tokens >= needed - 1) {
        this.#tokens -= bytes;
        return;
      }
      await this.#wait(((needed - this.#tokens) / this.#rate) * 1000, signal);
    }
  }

  #wait(durationMs: number, signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        clearTimeout(timer);
        this.#sleepers.delete(wake);
        signal?.removeEventListener('abort', wake);
        resolve();
      };
      const timer = setTimeout(wake, Math.min(LONGEST_WAIT_MS, Math.ceil(durationMs)));
      this.#sleepers.add(wake);
      signal?.addEventListener('abort', wake, { once: true });
    });
  }

  #refill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#rate * DEPTH_S, this.#tokens + ((now - this.#atMs) / 1000) * this.#rate);
    this.#atMs = now;
  }
}

/** Paces a sender: bytes leave at a rate that may change while somebody waits. */
import { deferred, type Deferred } from '../waiting.ts';

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
  #changed: Deferred<void> = deferred<void>();

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
    this.#changed.resolve();
    this.#changed = deferred<void>();
  }

  /** Resolves when so many bytes may leave. More than a filled bucket holds are lent, and paid back by who comes next. */
  async take(bytes: number): Promise<void> {
    for (;;) {
      if (!this.isLimited) return;
      this.#refill();
      const needed = Math.min(bytes, this.#rate * DEPTH_S);
      // Rounding must not make anybody wait for nothing.
      if (this.#tokens >= needed - 1) {
        this.#tokens -= bytes;
        return;
      }
      await this.#wait(((needed - this.#tokens) / this.#rate) * 1000);
    }
  }

  async #wait(durationMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const over = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, Math.min(LONGEST_WAIT_MS, Math.ceil(durationMs)));
    });
    await Promise.race([over, this.#changed.promise]);
    clearTimeout(timer);
  }

  #refill(): void {
    const now = this.#now();
    this.#tokens = Math.min(this.#rate * DEPTH_S, this.#tokens + ((now - this.#atMs) / 1000) * this.#rate);
    this.#atMs = now;
  }
}

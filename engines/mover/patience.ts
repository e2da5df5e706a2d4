/** How long trouble with the other end is borne, and when it is worth trying again. */
import type { Clock } from '../../schema/domain/seams.ts';

export const PATIENCE_MS = 30 * 60_000;
const FIRST_BACK_OFF_MS = 100;
const LONGEST_BACK_OFF_MS = 15_000;
/** A target that owes something and is silent for so long, or half the patience, is left, and tried anew. A sync may be slow. */
const SILENCE_MS = 5 * 60_000;

export const silenceMsOf = (patienceMs: number): number => Math.min(SILENCE_MS, Math.ceil(patienceMs / 2));

export class Patience {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #patienceMs: number;
  /** Since when nothing got through, and when it is worth trying again; null while all is well. */
  #trouble: { sinceMs: number; backOffMs: number; retryAtMs: number } | null = null;

  constructor(clock: Pick<Clock, 'monotonic'>, patienceMs: number) {
    this.#clock = clock;
    this.#patienceMs = patienceMs;
  }

  /** 0: now, as far as back-off goes. While in trouble one lane at a time tries. */
  readyInMs(inWork: number): number {
    if (!this.#trouble) return 0;
    return inWork > 0 ? Infinity : Math.max(0, Math.ceil(this.#trouble.retryAtMs - this.#clock.monotonic()));
  }

  gotThrough(): void {
    this.#trouble = null;
  }

  /** Null, or for how long nothing got through: longer than is borne. */
  met(): { lastedMs: number } | null {
    const now = this.#clock.monotonic();
    const sinceMs = this.#trouble?.sinceMs ?? now;
    if (now - sinceMs > this.#patienceMs) return { lastedMs: now - sinceMs };
    const backOffMs = this.#trouble ? Math.min(this.#trouble.backOffMs * 2, LONGEST_BACK_OFF_MS) : FIRST_BACK_OFF_MS;
    this.#trouble = { sinceMs, backOffMs, retryAtMs: now + backOffMs };
    return null;
  }
}

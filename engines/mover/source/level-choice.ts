/** How hard the blocks of a transfer are compressed. With `auto` each lane decides after each window. */
import type { Compression, CompressionLevel } from '../../../schema/domain/states.ts';

const ladder: readonly CompressionLevel[] = ['none', 'fast', 'balanced', 'small'];
const FIRST: CompressionLevel = 'balanced';
/** Of a window's time: above it what takes that time is what holds the transfer up. */
const HOLDS_UP = 0.5;
/** Windows in a row that ask for the same: one alone may be an odd piece of the disk. */
const AGREEING = 2;

/** Milliseconds of one window: in all, compressing, and with payloads waiting to leave while nothing was compressed. */
export type WindowTimes = { totalMs: number; encodeMs: number; waitMs: number };

export class LevelChoice {
  readonly #isFixed: boolean;
  #level: CompressionLevel;
  #asked = 0;

  constructor(compression: Compression) {
    this.#isFixed = compression !== 'auto';
    this.#level = compression === 'auto' ? FIRST : compression;
  }

  get level(): CompressionLevel {
    return this.#level;
  }

  /** The processor holds it up: less. The way to the repository does: more. */
  afterWindow({ totalMs, encodeMs, waitMs }: WindowTimes): void {
    if (this.#isFixed) return;
    const asks = encodeMs > totalMs * HOLDS_UP ? -1 : waitMs > totalMs * HOLDS_UP ? 1 : 0;
    this.#asked = Math.sign(this.#asked) === asks ? this.#asked + asks : asks;
    if (Math.abs(this.#asked) < AGREEING) return;
    const at = ladder.indexOf(this.#level) + asks;
    this.#level = ladder[Math.min(ladder.length - 1, Math.max(0, at))]!;
    this.#asked = 0;
  }
}

/** Takes the times of one window. */
export class WindowClock {
  readonly #now: () => number;
  readonly #startedMs: number;
  #encodeMs = 0;
  #waitMs = 0;
  #leaving = 0;
  #sinceMs = 0;

  /** `now`: milliseconds, monotonic. */
  constructor(now: () => number) {
    this.#now = now;
    this.#startedMs = now();
  }

  /** Synchronous work; it is no time of waiting for those payloads that are on their way. */
  encode<T>(work: () => T): T {
    const startedMs = this.#now();
    this.#stopWaiting(startedMs);
    const result = work();
    const endedMs = this.#now();
    this.#encodeMs += endedMs - startedMs;
    this.#sinceMs = endedMs;
    return result;
  }

  /** Any number may be on their way. */
  async leave(sending: Promise<void>): Promise<void> {
    this.#stopWaiting(this.#now());
    this.#leaving += 1;
    try {
      await sending;
    } finally {
      this.#stopWaiting(this.#now());
      this.#leaving -= 1;
    }
  }

  get times(): WindowTimes {
    return { totalMs: this.#now() - this.#startedMs, encodeMs: this.#encodeMs, waitMs: this.#waitMs };
  }

  #stopWaiting(nowMs: number): void {
    if (this.#leaving > 0) this.#waitMs += nowMs - this.#sinceMs;
    this.#sinceMs = nowMs;
  }
}

/**
 * Where a window of a restore is, for the clock of its lane: at one place at each moment. While blocks of it are to be written
 * it is with the target, however much more comes meanwhile; else it is away. What of that the repository was at work, or
 * held it back, the repository says at its end.
 */
import type { LaneClock, Spent } from '../stage-clock.ts';

export class WindowStages {
  readonly #clock: LaneClock;
  #writes = 0;
  #computing = false;
  #leave: (() => Spent) | null = null;
  #isAway = false;
  #isOver = false;
  readonly #away = { shareMs: 0, lastedMs: 0 };

  constructor(clock: LaneClock) {
    this.#clock = clock;
    this.#move();
  }

  /** Of what came: it is at the proxy. */
  compute(work: () => void): void {
    this.#computing = true;
    this.#move();
    try {
      this.#clock.compute(work);
    } finally {
      this.#computing = false;
      this.#move();
    }
  }

  /** Something is to be written, until what this returns is called. */
  write(): () => void {
    this.#writes += 1;
    this.#move();
    return () => {
      this.#writes -= 1;
      this.#move();
    };
  }

  /** By the repository, of the window: what it was at work, and what it held it back. */
  toldBy({ busyMs, heldMs }: { busyMs: number; heldMs: number }): void {
    const { shareMs, lastedMs } = this.#away;
    if (lastedMs <= 0) return;
    const busy = Math.min(1, busyMs / lastedMs);
    const held = Math.min(1 - busy, heldMs / lastedMs);
    this.#clock.awayWas('source', shareMs * busy);
    this.#clock.awayWas('throttling', shareMs * held);
  }

  leave(): void {
    this.#isOver = true;
    this.#move();
  }

  #move(): void {
    const place = this.#isOver || this.#computing ? null : this.#writes > 0 ? 'target' : 'away';
    const isThere = this.#leave === null ? null : this.#isAway ? 'away' : 'target';
    if (place === isThere) return;
    const spent = this.#leave?.();
    if (spent && this.#isAway) {
      this.#away.shareMs += spent.shareMs;
      this.#away.lastedMs += spent.lastedMs;
    }
    this.#isAway = place === 'away';
    this.#leave = place === null ? null : this.#clock.enter(place);
  }
}

/**
 * The clock of a lane: at which stage its pieces of work spend their time (`schema/domain/stages.ts` says how it is shared
 * out). A thread that computes hears late of what has ended meanwhile: what an operation waited for the thread alone is
 * the proxy's time. An operation heard of after a stretch of computing ended, as far as can be known, when that began.
 */
import { type StageTimes, noStageTimes, stages } from '../../schema/domain/stages.ts';

/**
 * `away`: with the network or what is at its other end, which only that end can tell apart. Beside the lane is the source of
 * a backup, and the target of a restore.
 */
export type Place = 'source' | 'target' | 'throttling' | 'away';
/** Goes around what is waited for because of a rule. */
export type HoldBack = <T>(work: () => Promise<T>) => Promise<T>;

/** Its part of the moments, without those in which it was held back, and how long it lasted. */
export type Spent = { shareMs: number; lastedMs: number };
const places = ['source', 'target', 'throttling', 'away'] as const satisfies readonly Place[];
type Moment = { shareMs: number; atMs: number };

/** What a lane tells of its clock: since the last time, whole milliseconds; what is left of them counts the next time. */
export function stagesSince(clock: LaneClock): () => StageTimes {
  let told = clock.times;
  return () => {
    const now = clock.times;
    const since = { ...now };
    for (const stage of stages) {
      now[stage] = Math.round(now[stage]);
      since[stage] = now[stage] - told[stage];
    }
    told = now;
    return since;
  };
}

export class LaneClock {
  readonly #now: () => number;
  readonly #times = { source: 0, target: 0, proxy: 0, throttling: 0, away: 0 };
  /** Pieces in work, and since when so many. */
  #count = 0;
  #atMs: number;
  /** What one piece has got, had it been there since the beginning. */
  #shareMs = 0;
  /** Of the pieces, how many are at each place, and what of these is held back: a piece may be so by several rules at once. */
  readonly #at = { source: 0, target: 0, throttling: 0, away: 0 };
  readonly #heldAt = { source: 0, target: 0, throttling: 0, away: 0 };
  /** What pieces that are still at a place were held back there: it is throttling's already, and never becomes the place's. */
  readonly #heldMs = { source: 0, target: 0, throttling: 0, away: 0 };
  /** Time with something away that is not held back, whatever else went on. */
  #awayMs = 0;
  /** When the thread first computed since the loop polled last, and in the turn before. */
  #computedAt: Moment | null = null;
  #computedBefore: Moment | null = null;
  #isTicking = false;
  /** Of `away`: what windows before the last acknowledgement came to, in all and the target's part. */
  #told = { awayMs: 0, away: 0, target: 0 };

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
    this.#atMs = now();
  }

  /** A piece is at `place` until `work` ends. */
  async spend<T>(place: Place, work: () => Promise<T>): Promise<T> {
    const leave = this.enter(place);
    try {
      return await work();
    } finally {
      leave();
    }
  }

  /** A piece is at `place` until what this returns is called, which says how long that was. */
  enter(place: Place): () => Spent {
    this.#enter();
    this.#at[place] += 1;
    const [from, fromMs] = [this.#shareMs, this.#atMs];
    return () => {
      this.#leave();
      this.#at[place] -= 1;
      const ended = this.#computedBefore?.shareMs ?? this.#computedAt?.shareMs ?? this.#shareMs;
      const heardLate = this.#shareMs - Math.max(ended, from);
      const shareMs = this.#withoutHeld(place, this.#shareMs - from - heardLate);
      this.#times.proxy += heardLate;
      this.#times[place] += shareMs;
      return { shareMs, lastedMs: Math.max(0, this.heardMs - fromMs) };
    };
  }

  /** So much of what pieces had spent away, as it is known now, was spent there. */
  awayWas(place: Exclude<Place, 'away'>, shareMs: number): void {
    this.#times.away -= shareMs;
    this.#times[place] += shareMs;
  }

  /** Of a piece that is at `place` already: held back meanwhile, so that place has it not. */
  async holdBack<T>(place: Place, work: () => Promise<T>): Promise<T> {
    this.#settle();
    this.#heldAt[place] += 1;
    try {
      return await work();
    } finally {
      this.#settle();
      this.#heldAt[place] -= 1;
    }
  }

  /** Of what a piece that leaves the place had, what was not throttling's. */
  #withoutHeld(place: Place, shareMs: number): number {
    const heldMs = Math.min(this.#heldMs[place], shareMs);
    this.#heldMs[place] -= heldMs;
    if (this.#at[place] === 0) {
      // It was held back while the thread computed, and heard late that this had ended: that is the proxy's.
      this.#times.throttling -= this.#heldMs[place];
      this.#heldMs[place] = 0;
    }
    return shareMs - heldMs;
  }

  /** When what is heard of now ended, as far as it is known. */
  get heardMs(): number {
    return this.#computedBefore?.atMs ?? this.#computedAt?.atMs ?? this.#now();
  }

  /** The thread computes. */
  compute<T>(work: () => T): T {
    this.#enter();
    const from = this.#shareMs;
    this.#computedAt ??= { shareMs: from, atMs: this.#atMs };
    this.#tick();
    try {
      return work();
    } finally {
      this.#leave();
      this.#times.proxy += this.#shareMs - from;
    }
  }

  /** The target was at work for `busyMs` since it last told: so much of the time away was its own. */
  acknowledged(busyMs: number): void {
    this.#settle();
    const awayMs = this.#awayMs - this.#told.awayMs;
    const away = this.#times.away - this.#told.away;
    const part = awayMs > 0 ? Math.min(1, busyMs / awayMs) : 0;
    this.#told = { awayMs: this.#awayMs, away: this.#times.away, target: this.#told.target + away * part };
  }

  /** Milliseconds since the clock was made, never below zero. What is away and not told of yet counts as the network's. */
  get times(): StageTimes {
    const { away, target, ...others } = this.#times;
    const times = { ...noStageTimes, ...others, network: away - this.#told.target, target: target + this.#told.target };
    // What is moved between stages may fall short of zero by the last bit of a fraction.
    for (const stage of stages) times[stage] = Math.max(0, times[stage]);
    return times;
  }

  #settle(): void {
    const now = this.#now();
    const shareMs = this.#count > 0 ? (now - this.#atMs) / this.#count : 0;
    this.#shareMs += shareMs;
    for (const place of places) this.#hold(place, shareMs * Math.min(this.#heldAt[place], this.#at[place]));
    if (this.#at.away > this.#heldAt.away) this.#awayMs += now - this.#atMs;
    this.#atMs = now;
  }

  #hold(place: Place, heldMs: number): void {
    this.#heldMs[place] += heldMs;
    this.#times.throttling += heldMs;
  }

  #enter(): void {
    this.#settle();
    this.#count += 1;
  }

  #leave(): void {
    this.#settle();
    this.#count -= 1;
  }

  /**
   * An immediate runs after each poll. What ended while the thread computed is heard of after the next poll, what is heard
   * of later ended later.
   */
  #tick(): void {
    if (this.#isTicking) return;
    this.#isTicking = true;
    setImmediate(() => {
      this.#isTicking = false;
      this.#computedBefore = this.#computedAt;
      this.#computedAt = null;
      if (this.#computedBefore !== null) this.#tick();
    });
  }
}

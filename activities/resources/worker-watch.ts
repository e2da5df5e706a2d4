/**
 * Who is alive, from what workers tell Temporal of themselves each few seconds. A sign counts when it *changes*, by our
 * own clock: clocks of other machines do not matter. Pollers of a queue would be the other source, but a long poll
 * that was given up by a killed process looks alive for a minute.
 */
export type WorkerSign = {
  /** One run of one worker. */
  instance: string;
  queue: string;
  /** Differs with each sign of life. */
  sign: string;
};
export type Verdict = 'alive' | 'silent' | 'unknown';

/** Several times the interval at which workers tell (5 s). */
export const SILENT_AFTER_MS = 20_000;

export class WorkerWatch {
  #signs = new Map<string, string>();
  readonly #aliveAt = new Map<string, number>();
  readonly #askedAt = new Map<string, number>();
  #watchingSinceMs: number | null = null;

  /** `nowMs`: monotonic. */
  observe(signs: readonly WorkerSign[], nowMs: number): void {
    this.#watchingSinceMs ??= nowMs;
    for (const { instance, queue, sign } of signs) {
      const before = this.#signs.get(instance);
      if (before !== undefined && before !== sign) this.#aliveAt.set(queue, nowMs);
    }
    this.#signs = new Map(signs.map(({ instance, sign }) => [instance, sign]));
  }

  /** Temporal did not tell: what was not heard meanwhile is nobody's silence. */
  missed(): void {
    this.#watchingSinceMs = null;
  }

  /** Since the last sign of life; null: none was seen yet. */
  silentMs(queue: string, nowMs: number): number | null {
    const aliveAt = this.#aliveAt.get(queue);
    return aliveAt === undefined ? null : nowMs - aliveAt;
  }

  /** `unknown`: it was not watched for long enough to call it silent. */
  verdict(queue: string, nowMs: number): Verdict {
    const askedAt = this.#askedAt.get(queue) ?? nowMs;
    this.#askedAt.set(queue, askedAt);
    if ((this.silentMs(queue, nowMs) ?? Infinity) < SILENT_AFTER_MS) return 'alive';
    if (this.#watchingSinceMs === null) return 'unknown';
    return nowMs - Math.max(this.#watchingSinceMs, askedAt) < SILENT_AFTER_MS ? 'unknown' : 'silent';
  }
}

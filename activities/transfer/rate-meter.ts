/** Bytes per second over the last few seconds: alive, and steadier than the last heartbeat alone. */
const SPAN_MS = 5000;

export class RateMeter {
  readonly #points: { atMs: number; bytes: number }[] = [];

  /** `bytes`: the sum so far; `atMs` never goes back. */
  add(atMs: number, bytes: number): void {
    this.#points.push({ atMs, bytes });
    // The newest point that is a span old stays: it is what the sum is compared with.
    while (this.#points.length > 1 && this.#points[1]!.atMs <= atMs - SPAN_MS) this.#points.shift();
  }

  get bytesPerSecond(): number {
    const [first, last] = [this.#points[0], this.#points.at(-1)];
    if (!first || !last || last.atMs === first.atMs) return 0;
    return Math.round(((last.bytes - first.bytes) * 1000) / (last.atMs - first.atMs));
  }
}

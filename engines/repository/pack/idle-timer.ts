/** Tells when nothing has happened for so long. One sleep at a time, however often something happens. */
import type { Clock } from '../../../schema/domain/seams.ts';

export class IdleTimer {
  readonly #clock: Clock;
  readonly #idleMs: number;
  readonly #onIdle: () => void;
  #lastMs = 0;
  /** Null: nobody waits. */
  #stop: AbortController | null = null;

  constructor(of: { clock: Clock; idleMs: number; onIdle: () => void }) {
    this.#clock = of.clock;
    this.#idleMs = of.idleMs;
    this.#onIdle = of.onIdle;
  }

  /** Something happened: from here on it is counted. */
  touch(): void {
    this.#lastMs = this.#clock.monotonic();
    if (this.#stop) return;
    this.#stop = new AbortController();
    void this.#wait(this.#stop.signal);
  }

  stop(): void {
    this.#stop?.abort();
    this.#stop = null;
  }

  async #wait(signal: AbortSignal): Promise<void> {
    for (let leftMs = this.#idleMs; leftMs > 0; leftMs = this.#lastMs + this.#idleMs - this.#clock.monotonic()) {
      await this.#clock.sleep(leftMs, signal).catch(() => undefined);
      if (signal.aborted) return;
    }
    this.#stop = null;
    this.#onIdle();
  }
}

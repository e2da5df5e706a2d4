/** Whether a disk still moves: storage that hangs answers nothing for ever, and a checkpoint grows meanwhile. */
import type { Clock } from '../../schema/domain/seams.ts';

/** How long the storage of a disk may give or take nothing. */
export const STORAGE_SILENCE_MS = 15 * 60_000;

export class Stillness {
  readonly #clock: Pick<Clock, 'monotonic'>;
  readonly #limitMs: number;
  #movedMs: number;

  constructor(clock: Pick<Clock, 'monotonic'>, limitMs: number) {
    this.#clock = clock;
    this.#limitMs = limitMs;
    this.#movedMs = clock.monotonic();
  }

  /** Something was read, written, sent, acknowledged, lost, or is held back by others than the storage. */
  moved(): void {
    this.#movedMs = this.#clock.monotonic();
  }

  /** For how many seconds nothing has moved, once that is longer than is borne; else null. */
  get tooLongSeconds(): number | null {
    const stillMs = this.#clock.monotonic() - this.#movedMs;
    return stillMs < this.#limitMs ? null : Math.round(stillMs / 1000);
  }
}

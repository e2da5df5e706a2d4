/** Which windows of a restore are durable, kept in its cursor file. In the main thread: the lanes of a disk share it. */
import { type RestoreCursor, type RestoreIdentity, type WindowsDone, writeCursor } from './cursor-file.ts';

export class DurableCursor {
  readonly #file: string;
  readonly #of: RestoreIdentity;
  readonly #onFailure: (error: unknown) => void;
  #lowWater: number;
  readonly #above: Set<number>;
  #isChanged = false;
  #writing: Promise<void> | null = null;

  constructor(file: string, { lowWater, above, ...of }: RestoreCursor, onFailure: (error: unknown) => void) {
    this.#file = file;
    this.#of = of;
    this.#lowWater = lowWater;
    this.#above = new Set(above);
    this.#onFailure = onFailure;
  }

  get windowsDone(): WindowsDone {
    return { lowWater: this.#lowWater, above: [...this.#above].sort((a, b) => a - b) };
  }

  /** Durable they are already; the file says so a little later. */
  add(windows: readonly number[]): void {
    for (const window of windows) this.#above.add(window);
    while (this.#above.delete(this.#lowWater)) this.#lowWater += 1;
    this.#isChanged = true;
    // After a failure nothing is written any more.
    this.#writing ??= this.#write();
    this.#writing.catch(this.#onFailure);
  }

  /** The file says all that was added. STORAGE_ERROR. */
  async idle(): Promise<void> {
    await this.#writing;
  }

  async #write(): Promise<void> {
    while (this.#isChanged) {
      this.#isChanged = false;
      await writeCursor(this.#file, { ...this.#of, ...this.windowsDone });
    }
    this.#writing = null;
  }
}

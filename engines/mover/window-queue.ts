/** Which windows of a disk are still to be sent, or restored: a bit per window, a pointer, and what came back. */
import type { TransferCursor } from '../../schema/domain/seams.ts';
import { windowExtent } from '../../schema/domain/extents.ts';

export type WindowItem = { kind: 'window'; window: number } | { kind: 'untouched'; firstWindow: number; count: number };

export class WindowQueue {
  readonly windowCount: number;
  readonly #sizeBytes: number;
  readonly #done: Uint8Array;
  readonly #touched: Uint8Array | null;
  readonly #back: WindowItem[] = [];
  #next = 0;
  #doneCount = 0;
  #doneBytes = 0;

  /** `touched` null: every window is (full, comparison). */
  constructor(sizeBytes: number, windowCount: number, touched: Uint8Array | null) {
    this.#sizeBytes = sizeBytes;
    this.windowCount = windowCount;
    this.#touched = touched;
    this.#done = new Uint8Array(Math.ceil(windowCount / 8));
  }

  get doneCount(): number {
    return this.#doneCount;
  }

  get doneBytes(): number {
    return this.#doneBytes;
  }

  get isDone(): boolean {
    return this.#doneCount === this.windowCount;
  }

  /** Windows a target says are durable; saying it again changes nothing. */
  markCursor(cursor: TransferCursor): void {
    for (let window = 0; window < cursor.lowWater; window += 1) this.mark(window);
    for (const window of cursor.above) this.mark(window);
  }

  mark(window: number): void {
    if (this.#isDone(window)) return;
    this.#done[window >> 3]! |= 1 << (window & 7);
    this.#doneCount += 1;
    this.#doneBytes += windowExtent(window, this.#sizeBytes).length;
  }

  putBack(item: WindowItem): void {
    this.#back.push(item);
  }

  /** Null: nothing left to hand out (some may be in work). */
  take(): WindowItem | null {
    const back = this.#back.shift();
    if (back) return back;
    while (this.#next < this.windowCount && this.#isDone(this.#next)) this.#next += 1;
    if (this.#next >= this.windowCount) return null;
    if (this.#isTouched(this.#next)) return { kind: 'window', window: this.#next++ };
    const firstWindow = this.#next;
    while (this.#next < this.windowCount && !this.#isDone(this.#next) && !this.#isTouched(this.#next)) this.#next += 1;
    return { kind: 'untouched', firstWindow, count: this.#next - firstWindow };
  }

  #isDone(window: number): boolean {
    return ((this.#done[window >> 3] ?? 0) & (1 << (window & 7))) !== 0;
  }

  #isTouched(window: number): boolean {
    return !this.#touched || ((this.#touched[window >> 3] ?? 0) & (1 << (window & 7))) !== 0;
  }
}

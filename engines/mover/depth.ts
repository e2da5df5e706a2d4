/**
 * How much of a disk is in work at once, over all lanes: segments that are read, or windows that are restored. A spinning
 * disk wants one, an array many, a slow link as many as its delay hides; nobody has to know: the next smaller or larger
 * depth is tried now and then, and kept where the disk goes no slower with less, or clearly faster with more.
 */
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { type StageTimes, stages } from '../../schema/domain/stages.ts';

/** Of the lanes' time: with less the processor or a rule holds the transfer up, and more at once would gain nothing. */
const HOLDS_UP = 0.5;
/** More in work must gain a tenth: figures waver, and all that is in work takes memory. */
const GAIN = 1.1;
/** Per lane, before a depth is judged. Bytes. */
const PERIOD_BYTES = WINDOW_BYTES;
/** Periods before the next try; doubled, up to the most, by each that brought nothing. */
const FEWEST_PERIODS = 1;
const MOST_PERIODS = 16;

/** `lanes`: that may work on the disk. `fixed`: asked for by the operator; default: found out, beginning with `first`. */
export type DepthBounds = { lanes: number; first: number; most: number; fixed?: number | undefined };

/** Since it began: bytes that were read or written, milliseconds, stages of all lanes. */
export type DepthFigures = { bytes: number; nowMs: number; stages: StageTimes };

export class Depth {
  readonly #isFixed: boolean;
  readonly #most: number;
  readonly #lanes: number;
  #depth: number;
  #from: DepthFigures;
  /** Until there are so many bytes, some are of another depth. */
  #settledAt = 0;
  /** What is tried now, of which depth and rate. */
  #trial: { before: number; rate: number } | null = null;
  #isUpNext = true;
  #pause = FEWEST_PERIODS;
  #left = FEWEST_PERIODS;

  constructor({ lanes, first, most, fixed }: DepthBounds, from: DepthFigures) {
    this.#lanes = lanes;
    this.#isFixed = fixed !== undefined;
    this.#most = most;
    this.#depth = Math.min(fixed ?? first, most);
    this.#from = from;
  }

  /** In work at once. */
  get depth(): number {
    return this.#depth;
  }

  /** Tell it after each window. */
  look(now: DepthFigures): void {
    if (now.bytes < this.#settledAt) this.#from = now;
    const bytes = now.bytes - this.#from.bytes;
    if (this.#isFixed || bytes < PERIOD_BYTES * this.#lanes) return;
    const rate = bytes / Math.max(1, now.nowMs - this.#from.nowMs);
    const isWaiting = waitingShare(this.#from.stages, now.stages) > HOLDS_UP;
    this.#from = now;
    if (this.#trial) this.#judge(this.#trial, rate);
    else if (!isWaiting) this.#left = this.#pause;
    else if ((this.#left -= 1) <= 0) this.#try(rate);
  }

  #change(depth: number): void {
    this.#depth = depth;
    this.#settledAt = this.#from.bytes + this.#lanes * WINDOW_BYTES;
  }

  #try(rate: number): void {
    const depth = this.#isUpNext ? this.#depth * 2 : Math.floor(this.#depth / 2);
    this.#isUpNext = !this.#isUpNext;
    if (depth < 1 || depth > this.#most) return;
    this.#trial = { before: this.#depth, rate };
    this.#change(depth);
  }

  #judge({ before, rate: rateBefore }: { before: number; rate: number }, rate: number): void {
    const isMore = this.#depth > before;
    this.#trial = null;
    if (rate >= rateBefore * (isMore ? GAIN : 1)) {
      // The same way once more.
      this.#isUpNext = isMore;
      this.#pause = FEWEST_PERIODS;
    } else {
      this.#change(before);
      this.#pause = Math.min(MOST_PERIODS, this.#pause * 2);
    }
    this.#left = this.#pause;
  }
}

function waitingShare(from: StageTimes, to: StageTimes): number {
  const spent = (stage: (typeof stages)[number]): number => to[stage] - from[stage];
  const all = stages.reduce((sum, stage) => sum + spent(stage), 0);
  return all > 0 ? (spent('source') + spent('network') + spent('target')) / all : 0;
}

/** How hard the blocks of a transfer are compressed. With `auto` each lane decides after each window. */
import { noStageTimes, type Stage, stages, type StageTimes } from '../../../schema/domain/stages.ts';
import type { Compression, CompressionLevel } from '../../../schema/domain/states.ts';

const ladder: readonly CompressionLevel[] = ['none', 'fast', 'balanced', 'small'];
const FIRST: CompressionLevel = 'balanced';
/** Of a window's time: above it what takes that time is what holds the transfer up. */
const HOLDS_UP = 0.5;
/** Windows in a row that ask for the same: one alone may be an odd piece of the disk. */
const AGREEING = 2;
/** What fewer bytes make faster. */
const onTheWay: readonly Stage[] = ['throttling', 'network', 'target'];

export class LevelChoice {
  readonly #isFixed: boolean;
  #level: CompressionLevel;
  #asked = 0;
  #before: Readonly<StageTimes> = noStageTimes;

  constructor(compression: Compression) {
    this.#isFixed = compression !== 'auto';
    this.#level = compression === 'auto' ? FIRST : compression;
  }

  get level(): CompressionLevel {
    return this.#level;
  }

  /** `times`: of the lane's clock until now. The processor holds it up: less. The way to the repository does: more. */
  afterWindow(times: StageTimes): void {
    if (this.#isFixed) return;
    const before = this.#before;
    const spent = (of: readonly Stage[]): number => of.reduce((sum, stage) => sum + times[stage] - before[stage], 0);
    const totalMs = spent(stages);
    this.#before = times;
    const asks = spent(['proxy']) > totalMs * HOLDS_UP ? -1 : spent(onTheWay) > totalMs * HOLDS_UP ? 1 : 0;
    this.#asked = Math.sign(this.#asked) === asks ? this.#asked + asks : asks;
    if (Math.abs(this.#asked) < AGREEING) return;
    const at = ladder.indexOf(this.#level) + asks;
    this.#level = ladder[Math.min(ladder.length - 1, Math.max(0, at))]!;
    this.#asked = 0;
  }
}

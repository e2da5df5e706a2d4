/** One disk on its way back, as the pool's main thread sees it: its windows, its figures, its patience. */
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import type { BrakeConfig } from '../../../schema/domain/configuration.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { addStageTimes, noStageTimes, stages, type StageTimes } from '../../../schema/domain/stages.ts';
import { BrakeNote } from '../brakes.ts';
import { Depth, type DepthFigures } from '../depth.ts';
import { Patience, PATIENCE_MS, silenceMsOf } from '../patience.ts';
import { STORAGE_SILENCE_MS, Stillness } from '../stillness.ts';
import { deferred } from '../waiting.ts';
import { WindowQueue } from '../window-queue.ts';
import { describeEndpoint } from '../wire-session/open-wire.ts';
import type { WindowsDone } from './cursor-file.ts';
import { type RestoreLanes, restoreDepthOf } from './restore-depth.ts';
import type { RestoreItem, RestoreOrder, RestoreSpec, RestoreSummary, WindowWritten } from './restore-spec.ts';

/** A daemon that writes an image takes four connections, and is asked over one of its own whether it lives. */
const NBD_LANES = 3;

type RestoreSeams = Pick<Seams, 'clock' | 'meter'>;

export class RunningRestore {
  readonly id: number;
  readonly #order: RestoreOrder;
  readonly #patience: Patience;
  readonly #result = deferred<RestoreSummary>();
  readonly #queue: WindowQueue;
  readonly #depth: Depth;
  #inWork = 0;
  #failed = false;
  #receivedBytes = 0;
  #writtenBytes = 0;
  #windowsRestored = 0;
  #reconnects = 0;
  #stages: Readonly<StageTimes> = noStageTimes;
  readonly #stillness: Stillness;
  readonly #brake: BrakeNote;
  readonly #seams: RestoreSeams;

  /** `begun`: what an attempt before this one left done. */
  constructor(id: number, order: RestoreOrder, begun: WindowsDone, of: RestoreLanes & { seams: RestoreSeams }) {
    const { seams } = of;
    this.id = id;
    this.#order = order;
    this.#seams = seams;
    this.#stillness = new Stillness(seams.clock, order.targetSilenceMs ?? STORAGE_SILENCE_MS);
    this.#patience = new Patience(seams.clock, this.#patienceMs);
    this.#brake = new BrakeNote(seams.clock);
    const { sizeBytes } = order.target;
    const windowCount = windowCountOf(sizeBytes);
    this.#queue = new WindowQueue(sizeBytes, windowCount, null);
    this.#queue.markCursor({ ...begun, windowCount });
    this.#depth = new Depth(restoreDepthOf(of, this.laneLimit), this.#figures);
    this.#settle();
  }

  /** All windows are written; durable they are when the lanes have ended it. */
  get finished(): Promise<RestoreSummary> {
    return this.#result.promise;
  }

  get spec(): RestoreSpec {
    const { run, restorePointId, diskKey, endpoint, grant, grantEnd, target } = this.#order;
    const silenceMs = silenceMsOf(this.#patienceMs);
    const where = {
      endpoint,
      ...(grant === undefined ? {} : { grant }),
      ...(grantEnd === undefined ? {} : { grantEnd }),
    };
    return { restoreId: this.id, run, restorePointId, diskKey, ...where, target, silenceMs };
  }

  get laneLimit(): number {
    return this.#order.target.data.via === 'nbd' ? NBD_LANES : Infinity;
  }

  get #patienceMs(): number {
    return this.#order.patienceMs ?? PATIENCE_MS;
  }

  readyInMs(): number {
    return this.#patience.readyInMs(this.#inWork);
  }

  take(): RestoreItem | null {
    const item = this.#failed || this.#inWork >= this.#depth.depth ? null : this.#queue.take();
    if (item?.kind !== 'window') return null;
    // Who waits for a lane is not still.
    if (this.#inWork === 0) this.#stillness.moved();
    this.#inWork += 1;
    return item;
  }

  done({ window }: RestoreItem, written: WindowWritten): void {
    this.#stillness.moved();
    this.#inWork -= 1;
    this.#patience.gotThrough();
    this.#queue.mark(window);
    this.#windowsRestored += 1;
    this.#receivedBytes += written.receivedBytes;
    this.#writtenBytes += written.writtenBytes;
    this.#depth.look(this.#figures);
    this.#report(null);
    this.#settle();
  }

  get #figures(): DepthFigures {
    return { bytes: this.#writtenBytes, nowMs: this.#seams.clock.monotonic(), stages: this.#stages };
  }

  /** Where its time went, so far as lanes have told. */
  get stages(): StageTimes {
    return { ...this.#stages };
  }

  /** Lanes tell after a write, and at the end of a window. */
  addStages(since: StageTimes): void {
    this.#stillness.moved();
    this.#stages = addStageTimes(this.#stages, since);
    for (const stage of stages)
      if (since[stage] !== 0) this.#seams.meter.add('restore_stage_ms', since[stage], { stage });
    this.#report(null);
  }

  get brakes(): readonly BrakeConfig[] {
    return this.#order.target.brakes ?? [];
  }

  /** A brake holds it back; said until it has not for a while. `isUnderWay`: and its target owes the answer to a write. */
  brake(reason: string, isUnderWay: boolean): void {
    if (!isUnderWay) this.#stillness.moved();
    this.#brake.say(reason);
    this.#report(null);
  }

  /** What was lost comes back; what the target refused or could not be written ends the restore. */
  lost(item: RestoreItem, error: unknown): void {
    this.#stillness.moved();
    this.#inWork -= 1;
    this.#queue.putBack(item);
    const again = error instanceof TidemarkError && error.details['lost'] === true;
    if (!again) return this.fail(error);
    this.#reconnects += 1;
    if (this.#patience.met()) return this.fail(this.#givenUp(error));
    this.#report(`repository at ${describeEndpoint(this.#order.endpoint)}: ${messageOf(error)}`);
  }

  /** Its target has taken a write, or something that was written is durable. */
  moved(): void {
    this.#stillness.moved();
  }

  /** UNREACHABLE: what is written to has fallen silent, the last flush included. A repository that has is lost sooner (`silenceMsOf`). */
  stuck(): TidemarkError | null {
    const seconds = this.#stillness.tooLongSeconds;
    const isEnding = this.#queue.isDone;
    if ((this.#inWork === 0 && !isEnding) || seconds === null) return null;
    const { diskKey } = this.#order;
    const what = isEnding ? 'has not made durable what was written' : 'has taken no write';
    return new TidemarkError('UNREACHABLE', `disk ${diskKey}: its target ${what} for ${seconds} s`, { diskKey });
  }

  /** What the lane wrote last may not be durable, and nobody can say so any more. */
  laneLost(error: Error): void {
    this.fail(error);
  }

  fail(error: unknown): void {
    this.#failed = true;
    this.#result.reject(error);
  }

  #settle(): void {
    if (!this.#queue.isDone || this.#inWork > 0) return;
    const { diskKey, target } = this.#order;
    this.#result.resolve({
      diskKey,
      sizeBytes: target.sizeBytes,
      receivedBytes: this.#receivedBytes,
      writtenBytes: this.#writtenBytes,
      windowsRestored: this.#windowsRestored,
      reconnects: this.#reconnects,
      stages: this.stages,
    });
  }

  #givenUp(cause: Error): TidemarkError {
    const { diskKey } = this.#order;
    const message = `disk ${diskKey}: no way to the repository: ${cause.message}`;
    return new TidemarkError('TRANSFER_FAILED', message, { diskKey }, cause);
  }

  #report(waitsFor: string | null): void {
    this.#order.onProgress?.({
      bytesDone: this.#queue.doneBytes,
      bytesTotal: this.#order.target.sizeBytes,
      receivedBytes: this.#receivedBytes,
      writtenBytes: this.#writtenBytes,
      waitsFor: this.#brake.now ?? waitsFor,
      stages: this.stages,
    });
  }
}

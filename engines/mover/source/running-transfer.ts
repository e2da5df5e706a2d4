/** One disk on its way, as the pool's main thread sees it: its queue, its figures, its patience. */
import type { BrakeConfig } from '../../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { TransferSummary } from '../../../schema/domain/restore-point.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { addStageTimes, noStageTimes, stages, type StageTimes } from '../../../schema/domain/stages.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import { BrakeNote } from '../brakes.ts';
import { Depth, type DepthFigures } from '../depth.ts';
import { Patience, PATIENCE_MS, silenceMsOf } from '../patience.ts';
import { STORAGE_SILENCE_MS, Stillness } from '../stillness.ts';
import { deferred } from '../waiting.ts';
import { describeEndpoint } from '../wire-session/open-wire.ts';
import type { ItemDone, LaneAudit, LaneItem, LaneProgress, TransferSpec } from './lane.ts';
import type { TransferOrder, TransferProgress } from './transfer-order.ts';
import { readDepthOf, type SourceLanes } from './read-depth.ts';
import { WindowQueue } from '../window-queue.ts';

export class RunningTransfer {
  readonly id: number;
  readonly #order: TransferOrder;
  readonly #seams: Pick<Seams, 'clock' | 'meter'>;
  readonly #lanes: SourceLanes;
  readonly #startedMs: number;
  readonly #stillness: Stillness;
  readonly #patience: Patience;
  readonly #result = deferred<TransferSummary>();
  #queue: WindowQueue | null = null;
  /** Since it was opened. */
  #depth: Depth | null = null;
  #opening = false;
  #inWork = 0;
  #failed = false;
  /** Bytes done of windows in work, per lane: they count once acknowledged, and go back when lost. */
  readonly #partBytes = new Map<number, number>();
  #readBytes = 0;
  #sentBytes = 0;
  #windowsSent = 0;
  #reconnects = 0;
  #stages: Readonly<StageTimes> = noStageTimes;
  #waitsFor: string | null = null;
  readonly #brake: BrakeNote;
  #audit: TransferProgress['audit'] = null;

  constructor(id: number, order: TransferOrder, seams: Pick<Seams, 'clock' | 'meter'>, lanes: SourceLanes) {
    this.id = id;
    this.#order = order;
    this.#seams = seams;
    this.#lanes = lanes;
    this.#startedMs = seams.clock.monotonic();
    this.#patience = new Patience(seams.clock, this.#patienceMs);
    this.#brake = new BrakeNote(seams.clock);
    this.#stillness = new Stillness(seams.clock, order.sourceSilenceMs ?? STORAGE_SILENCE_MS);
  }

  get finished(): Promise<TransferSummary> {
    return this.#result.promise;
  }

  get failed(): boolean {
    return this.#failed;
  }

  get spec(): TransferSpec {
    const { access, assignment } = this.#order;
    return { transferId: this.id, access, assignment, silenceMs: silenceMsOf(this.#patienceMs) };
  }

  /** Lanes that may work on it: each opens the disk for itself, and an export takes only so many connections. */
  get laneLimit(): number {
    const { data } = this.#order.access;
    return data.via === 'nbd' ? Math.max(1, data.maxConnections) : Infinity;
  }

  get #patienceMs(): number {
    return this.#order.patienceMs ?? PATIENCE_MS;
  }

  readyInMs(): number {
    return this.#patience.readyInMs(this.#inWork);
  }

  take(): LaneItem | null {
    if (this.#failed) return null;
    const item = this.#queue ? this.#takeWindow() : this.#opening ? null : ({ kind: 'open' } as const);
    if (!item) return null;
    if (item.kind === 'open') this.#opening = true;
    // Who waits for a lane is not still.
    if (this.#inWork === 0) this.#stillness.moved();
    this.#inWork += 1;
    return item;
  }

  /** No more lanes than segments in work at once. */
  #takeWindow(): LaneItem | null {
    const lanes = Math.min(this.#depth!.depth, this.#lanes.laneCount, this.laneLimit);
    const item = this.#inWork < lanes ? this.#queue!.take() : null;
    return item?.kind === 'window' ? { ...item, width: Math.ceil(this.#depth!.depth / lanes) } : item;
  }

  get #figures(): DepthFigures {
    return { bytes: this.#readBytes, nowMs: this.#seams.clock.monotonic(), stages: this.#stages };
  }

  progress(p: LaneProgress, lane: number): void {
    this.#stillness.moved();
    this.#readBytes += p.readBytes;
    this.#sentBytes += p.sentBytes;
    this.#partBytes.set(lane, (this.#partBytes.get(lane) ?? 0) + p.doneBytes);
    this.#waitsFor = p.waitsFor;
    this.#addStages(p.stages);
    this.#report();
  }

  audit({ audited, wanted }: LaneAudit): void {
    this.#stillness.moved();
    this.#audit = { audited, wanted };
    this.#report();
  }

  done(item: LaneItem, result: ItemDone, lane: number): void {
    this.#leaveWork(lane);
    this.#addStages(result.stages);
    this.#patience.gotThrough();
    const { assignment } = this.#order;
    if (item.kind === 'open') {
      this.#queue = new WindowQueue(assignment.sizeBytes, windowCountOf(assignment.sizeBytes), result.touched);
      this.#depth = new Depth(readDepthOf(this.#lanes, this.laneLimit), this.#figures);
    }
    const queue = this.#queue!;
    if (result.cursor) queue.markCursor(result.cursor);
    if (item.kind === 'window') {
      queue.mark(item.window);
      this.#depth!.look(this.#figures);
    }
    if (item.kind === 'untouched') for (let i = 0; i < item.count; i += 1) queue.mark(item.firstWindow + i);
    if (result.sent) this.#windowsSent += item.kind === 'untouched' ? item.count : 1;
    this.#report();
    if (queue.isDone && this.#inWork === 0) this.#result.resolve(this.#summary());
  }

  /** What was lost comes back; what the target or the reader refused ends the transfer. */
  lost(item: LaneItem, error: unknown, lane: number): void {
    this.#leaveWork(lane);
    if (item.kind === 'open') this.#opening = false;
    else this.#queue?.putBack(item);
    const again = error instanceof TidemarkError && error.details['lost'] === true;
    if (!again) return this.fail(error);
    this.#reconnects += 1;
    const tooLong = this.#patience.met();
    if (tooLong) return this.fail(this.#givenUp(tooLong.lastedMs, error));
    this.#waitsFor = `repository at ${describeEndpoint(this.#order.assignment.endpoint)}: ${messageOf(error)}`;
    this.#report();
  }

  get brakes(): readonly BrakeConfig[] {
    return this.#order.access.brakes ?? [];
  }

  /**
   * UNREACHABLE: the source has fallen silent. A target that has is lost sooner (`silenceMsOf`), and what
   * is held back while the source owes nothing tells so again and again.
   */
  stuck(): TidemarkError | null {
    const seconds = this.#stillness.tooLongSeconds;
    if (this.#failed || this.#inWork === 0 || seconds === null) return null;
    const { diskKey } = this.#order.assignment;
    const message = `disk ${diskKey}: its storage has answered no read for ${seconds} s`;
    return new TidemarkError('UNREACHABLE', message, { diskKey });
  }

  /** Its source has answered a read. */
  moved(): void {
    this.#stillness.moved();
  }

  /** A brake holds it back; said until it has not for a while. `isUnderWay`: and its source owes the answer to a read. */
  brake(reason: string, isUnderWay: boolean): void {
    if (!isUnderWay) this.#stillness.moved();
    this.#brake.say(reason);
    this.#report();
  }

  fail(error: unknown): void {
    this.#failed = true;
    this.#result.reject(error);
  }

  #givenUp(durationMs: number, cause: Error): TidemarkError {
    const { diskKey, endpoint } = this.#order.assignment;
    const seconds = Math.round(durationMs / 1000);
    const message = `disk ${diskKey}: no way to repository at ${describeEndpoint(endpoint)} for ${seconds} s: ${cause.message}`;
    return new TidemarkError('TRANSFER_FAILED', message, { diskKey }, cause);
  }

  #addStages(since: StageTimes): void {
    this.#stages = addStageTimes(this.#stages, since);
    for (const stage of stages)
      if (since[stage] !== 0) this.#seams.meter.add('transfer_stage_ms', since[stage], { stage });
  }

  #leaveWork(lane: number): void {
    this.#stillness.moved();
    this.#inWork -= 1;
    this.#partBytes.delete(lane);
  }

  #report(): void {
    const { sizeBytes } = this.#order.assignment;
    const parts = [...this.#partBytes.values()].reduce((sum, bytes) => sum + bytes, 0);
    this.#order.onProgress?.({
      bytesDone: Math.min(sizeBytes, (this.#queue?.doneBytes ?? 0) + parts),
      bytesTotal: sizeBytes,
      readBytes: this.#readBytes,
      sentBytes: this.#sentBytes,
      windowsAcked: this.#queue?.doneCount ?? 0,
      windowCount: windowCountOf(sizeBytes),
      windowOpen: this.#queue !== null && this.#inWork > 0,
      waitsFor: this.#brake.now ?? this.#waitsFor,
      stages: { ...this.#stages },
      audit: this.#audit,
    });
  }

  #summary(): TransferSummary {
    return {
      diskKey: this.#order.assignment.diskKey,
      fence: this.#order.assignment.fence,
      windowCount: this.#queue!.windowCount,
      windowsSent: this.#windowsSent,
      readBytes: this.#readBytes,
      sentBytes: this.#sentBytes,
      reconnects: this.#reconnects,
      stages: { ...this.#stages },
      durationMs: Math.round(this.#seams.clock.monotonic() - this.#startedMs),
    };
  }
}

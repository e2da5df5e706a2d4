/** A source lane: one thread that takes windows of any transfer from the pool, one at a time. */
import type { DiskAccess } from '../../../schema/domain/hypervisor.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { releaseFreeMemory } from '../../../schema/domain/memory.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { DiskReader, Seams, TransferCursor } from '../../../schema/domain/seams.ts';
import type { StageTimes } from '../../../schema/domain/stages.ts';
import { encodeBlock } from '../block-codec.ts';
import { brakedReader, permitsOf } from '../braked.ts';
import { LaneClock, stagesSince } from '../stage-clock.ts';
import { openPortCalls, type Port, type PortCalls } from '../port-calls.ts';
import { endOf, windowExtent } from '../../../schema/domain/extents.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import { LevelChoice } from './level-choice.ts';
import { auditTracking } from './audit-tracking.ts';
import { compareWindow } from './compare-window.ts';
import { SegmentBuffers, sendWindow, type WaitsFor, type WindowWork } from './send-window.ts';
import { SourceConnection } from './source-connection.ts';
import { touchedWindows } from './window-plan.ts';

/** `silenceMs`: see `SourceConnection.open`. */
export type TransferSpec = {
  transferId: number;
  access: DiskAccess;
  assignment: TransferAssignment;
  silenceMs: number;
};
export type LaneItem =
  | { kind: 'open' }
  /** `width`: segments of it in work at once. */
  | { kind: 'window'; window: number; width: number }
  | { kind: 'untouched'; firstWindow: number; count: number };
/**
 * `cursor`: of a connection opened for this item. `sent` false: the cursor had the window already. `stages`: since what was
 * told last; a part may be negative, since network and target are told apart late.
 */
export type ItemDone = {
  cursor: TransferCursor | null;
  sent: boolean;
  touched: Uint8Array | null;
  stages: StageTimes;
};
export type LaneProgress = {
  transferId: number;
  readBytes: number;
  sentBytes: number;
  doneBytes: number;
  waitsFor: WaitsFor;
  /** As in `ItemDone`. */
  stages: StageTimes;
};

/** Share of a window that may differ for the next one to be compared as a whole. */
const MOST_DIFFERING = 1 / 8;

export type LaneAudit = { transferId: number; audited: number; wanted: number };

export type SourceLaneOptions = {
  port: Port;
  seams: Seams;
  openReader: (access: DiskAccess, seams: Seams) => Promise<DiskReader>;
  /** Default: the codecs of the wire. */
  encode?: typeof encodeBlock;
  /** For repositories of other machines. */
  secure?: ClientEnd | undefined;
};

/** Serves the pool over `port` until the thread ends. */
export function runSourceLane(options: SourceLaneOptions): void {
  const { port, seams, openReader, encode = encodeBlock, secure } = options;
  const transfers = new Map<number, LaneTransfer>();
  const buffers = new SegmentBuffers();
  const calls: PortCalls = openPortCalls(port, {
    begin: (spec: TransferSpec) =>
      void transfers.set(
        spec.transferId,
        new LaneTransfer(
          spec,
          { buffers, encode, secure },
          async (clock) => {
            const reader = await openReader(spec.access, seams);
            const permits = permitsOf(calls, spec.transferId, spec.access.brakes);
            return permits ? brakedReader(reader, permits, clock) : reader;
          },
          { progress: (p) => calls.notify('progress', p), audit: (p) => calls.notify('audit', p) },
        ),
      ),
    run: (transferId: number, item: LaneItem) => {
      const transfer = transfers.get(transferId);
      if (!transfer) throw new TidemarkError('BUG', `lane knows no transfer ${transferId}`);
      return transfer.run(item);
    },
    end: async (transferId: number, aborted: boolean) => {
      const transfer = transfers.get(transferId);
      transfers.delete(transferId);
      await transfer?.end(aborted);
      if (transfers.size > 0) return;
      buffers.release();
      releaseFreeMemory();
    },
  });
}

/** What all transfers of a lane share. */
type LaneTools = Pick<WindowWork, 'buffers' | 'encode'> & { secure: ClientEnd | undefined };

type OpenReader = (clock: LaneClock) => Promise<DiskReader>;
type Reports = { progress(of: LaneProgress): void; audit(of: LaneAudit): void };

class LaneTransfer {
  readonly #spec: TransferSpec;
  readonly #tools: LaneTools;
  readonly #open: OpenReader;
  readonly #report: Reports;
  readonly #abort = new AbortController();
  #reader: Promise<DiskReader> | null = null;
  #connection: SourceConnection | null = null;
  #cursor: TransferCursor | null = null;
  readonly #levels: LevelChoice;
  /** The last window was. */
  #isMostlySame = true;
  readonly #clock = new LaneClock();
  readonly #stages = stagesSince(this.#clock);

  constructor(spec: TransferSpec, tools: LaneTools, open: OpenReader, report: Reports) {
    this.#spec = spec;
    this.#levels = new LevelChoice(spec.assignment.compression);
    this.#tools = tools;
    this.#open = open;
    this.#report = report;
  }

  async run(item: LaneItem): Promise<ItemDone> {
    const fresh = await this.#connect();
    const cursor = fresh ? this.#cursor : null;
    const done = await this.#do(item);
    return { cursor: item.kind === 'open' ? this.#cursor : cursor, ...done, stages: this.#stages() };
  }

  async #do(item: LaneItem): Promise<{ sent: boolean; touched: Uint8Array | null }> {
    if (item.kind === 'open') return { sent: false, touched: await this.#touched() };
    if (item.kind === 'untouched') {
      const { firstWindow, count } = item;
      const sent = (): Promise<number> => this.#connection!.sendUntouched(firstWindow, count);
      this.#clock.acknowledged(await this.#clock.spend('away', sent));
      return { sent: true, touched: null };
    }
    if (this.#isDurable(item.window)) return { sent: false, touched: null };
    await this.#send(item);
    return { sent: true, touched: null };
  }

  async #send({ window, width }: LaneItem & { kind: 'window' }): Promise<void> {
    const { transferId, assignment } = this.#spec;
    const { signal } = this.#abort;
    const connection = this.#connection!;
    try {
      const reader = await this.#clock.spend('source', () => this.#openReader());
      const onProgress: WindowWork['onProgress'] = (p) =>
        this.#report.progress({ transferId, ...p, stages: this.#stages() });
      const send = this.#isLikelySame(window) ? compareWindow : sendWindow;
      const { buffers, encode } = this.#tools;
      const own = { buffers, encode, levels: this.#levels, clock: this.#clock };
      const { length } = windowExtent(window, assignment.sizeBytes);
      const wantedBytes = await send({ reader, connection, assignment, window, width, signal, onProgress, ...own });
      this.#isMostlySame = wantedBytes <= length * MOST_DIFFERING;
    } catch (error) {
      // The window is open at the target: only a new connection makes it forgotten.
      connection.destroy(error as Error);
      throw error;
    }
  }

  /** Of a disk that differs in many places, blocks would be read twice: then it is sent as any other. */
  #isLikelySame(window: number): boolean {
    const { sizeBytes, comparableBytes = 0 } = this.#spec.assignment;
    return this.#isMostlySame && endOf(windowExtent(window, sizeBytes)) <= comparableBytes;
  }

  #isDurable(window: number): boolean {
    return this.#cursor !== null && (window < this.#cursor.lowWater || this.#cursor.above.includes(window));
  }

  /** True when a new connection had to be opened. */
  async #connect(): Promise<boolean> {
    this.#abort.signal.throwIfAborted();
    if (this.#connection?.alive) return false;
    const { assignment, silenceMs } = this.#spec;
    const { signal } = this.#abort;
    this.#connection = await SourceConnection.open(assignment, { silenceMs, signal, secure: this.#tools.secure });
    this.#cursor = this.#connection.cursor;
    if (signal.aborted) this.#connection.destroy(signal.reason as Error);
    if (this.#connection.auditDue) await this.#audit(this.#connection);
    return true;
  }

  async #audit(connection: SourceConnection): Promise<void> {
    const { transferId, assignment } = this.#spec;
    const { signal } = this.#abort;
    const onStep = (p: Omit<LaneAudit, 'transferId'>): void => this.#report.audit({ transferId, ...p });
    try {
      const reader = await this.#openReader();
      await auditTracking({ reader, connection, assignment, buffers: this.#tools.buffers, signal, onStep });
    } catch (error) {
      connection.destroy(error as Error);
      throw error;
    }
  }

  /** A reader that could not be opened is tried again by the next window. */
  #openReader(): Promise<DiskReader> {
    this.#reader ??= this.#open(this.#clock).catch((error: unknown) => {
      this.#reader = null;
      throw error;
    });
    return this.#reader;
  }

  async #touched(): Promise<Uint8Array | null> {
    const { assignment } = this.#spec;
    if (assignment.mode !== 'cbt') return null;
    return await this.#clock.spend('source', async () => touchedWindows(await this.#openReader(), assignment));
  }

  async end(aborted: boolean): Promise<void> {
    const reason = new TidemarkError('STOPPED', `transfer of disk ${this.#spec.assignment.diskKey} was stopped`);
    this.#abort.abort(reason);
    if (aborted) this.#connection?.destroy(reason);
    else this.#connection?.close();
    await this.#reader?.then((reader) => reader.close()).catch(() => undefined);
  }
}

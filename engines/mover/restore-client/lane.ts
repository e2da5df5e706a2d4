/** A restore lane: one thread that takes windows of any restore from the pool, each over a connection of its own. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { releaseFreeMemory } from '../../../schema/domain/memory.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';
import type { DiskWriter, Seams } from '../../../schema/domain/seams.ts';
import { decodeBlock } from '../block-codec.ts';
import { brakedWriter, permitsOf } from '../braked.ts';
import { LaneClock, stagesSince } from '../stage-clock.ts';
import { openPortCalls, type Port, type PortCalls } from '../port-calls.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import { createFlushBehind, type FlushBehind } from './flush-behind.ts';
import { type ConnectionOptions, RestoreConnection } from './restore-connection.ts';
import type { LaneDurable, LaneStages, RestoreItem, RestoreSpec, WindowWritten } from './restore-spec.ts';

/** A window of a slow restore takes longer. */
const TELL_STAGES_MS = 1000;

export type RestoreLaneOptions = {
  port: Port;
  seams: Seams;
  openWriter: (access: TargetAccess, seams: Seams) => Promise<DiskWriter>;
  /** Default: the codecs of the wire. */
  decode?: typeof decodeBlock;
  /** For repositories of other machines. */
  secure?: ClientEnd | undefined;
};

/** Serves the pool over `port` until the thread ends. */
export function runRestoreLane(options: RestoreLaneOptions): void {
  const { port, seams, openWriter, decode = decodeBlock, secure } = options;
  const restores = new Map<number, LaneRestore>();
  const calls: PortCalls = openPortCalls(port, {
    begin: (spec: RestoreSpec) => {
      const permits = permitsOf(calls, spec.restoreId, spec.target.brakes);
      const open: OpenWriter = async (clock) => {
        const writer = await openWriter(spec.target, seams);
        return permits ? brakedWriter(writer, permits, clock) : writer;
      };
      const report: Reports = {
        durable: (of) => calls.notify('durable', of),
        stages: (of) => calls.notify('stages', of),
      };
      restores.set(spec.restoreId, new LaneRestore(spec, open, report, { decode, secure }));
    },
    run: (restoreId: number, item: RestoreItem) => {
      const restore = restores.get(restoreId);
      if (!restore) throw new TidemarkError('BUG', `lane knows no restore ${restoreId}`);
      return restore.run(item);
    },
    end: async (restoreId: number, aborted: boolean) => {
      const restore = restores.get(restoreId);
      // Known until it is finished: what hangs or fails there can still be told to let go.
      if (!aborted) await restore?.finish();
      restores.delete(restoreId);
      if (aborted) await restore?.abort();
      if (restores.size === 0) releaseFreeMemory();
    },
  });
}

/** What all restores of a lane share. */
type LaneTools = Pick<ConnectionOptions, 'decode' | 'secure'>;
type OpenWriter = (clock: LaneClock) => Promise<DiskWriter>;
type Reports = { durable(of: LaneDurable): void; stages(of: LaneStages): void };
type OpenTarget = { writer: DiskWriter; flushes: FlushBehind };

class LaneRestore {
  readonly #spec: RestoreSpec;
  readonly #open: OpenWriter;
  readonly #report: Reports;
  readonly #tools: LaneTools;
  readonly #abort = new AbortController();
  #target: Promise<OpenTarget> | null = null;
  readonly #connections = new Set<RestoreConnection>();
  readonly #idle: RestoreConnection[] = [];
  readonly #clock = new LaneClock();
  readonly #stages = stagesSince(this.#clock);
  #toldAtMs = performance.now();

  constructor(spec: RestoreSpec, open: OpenWriter, report: Reports, tools: LaneTools) {
    this.#spec = spec;
    this.#open = open;
    this.#report = report;
    this.#tools = tools;
  }

  async run({ window }: RestoreItem): Promise<WindowWritten> {
    try {
      const target = await this.#clock.spend('target', () => (this.#target ??= this.#openTarget()));
      const written = await this.#write(window, target);
      await this.#clock.spend('target', () => target.flushes.finished(window));
      return written;
    } finally {
      this.#tellStages();
    }
  }

  #tellStages(): void {
    this.#toldAtMs = performance.now();
    this.#report.stages({ restoreId: this.#spec.restoreId, stages: this.#stages() });
  }

  /** All it wrote is durable. */
  async finish(): Promise<void> {
    const target = await this.#target;
    await this.#clock.spend('target', async () => target?.flushes.idle());
    this.#tellStages();
    for (const connection of this.#connections) connection.close();
    await target?.writer.close();
  }

  async abort(): Promise<void> {
    const reason = new TidemarkError('STOPPED', `restore of disk ${this.#spec.diskKey} was stopped`);
    this.#abort.abort(reason);
    for (const connection of this.#connections) connection.destroy(reason);
    // A flush has no signal of its own, and a target that hangs would hold the lane for ever.
    await this.#target?.then(({ writer }) => writer.close()).catch(() => undefined);
  }

  async #openTarget(): Promise<OpenTarget> {
    const { restoreId } = this.#spec;
    const writer = await this.#open(this.#clock);
    const flushes = createFlushBehind(
      () => writer.flush(),
      (windows) => this.#report.durable({ restoreId, windows }),
    );
    return { writer, flushes };
  }

  async #write(window: number, { writer, flushes }: OpenTarget): Promise<WindowWritten> {
    const { signal } = this.#abort;
    let writtenBytes = 0;
    const connection = this.#idle.pop() ?? (await this.#clock.spend('away', () => this.#connect()));
    try {
      const receivedBytes = await connection.getWindow(window, {
        zero: (offset, length) => writer.zero({ offset, length }, signal),
        write: async (offset, bytes) => {
          await writer.write(offset, bytes, signal);
          writtenBytes += bytes.length;
          flushes.wrote(bytes.length);
          if (performance.now() - this.#toldAtMs >= TELL_STAGES_MS) this.#tellStages();
        },
      });
      this.#idle.push(connection);
      return { receivedBytes, writtenBytes };
    } catch (error) {
      // What the window was left half-way with would be taken for an answer to the next.
      connection.destroy(error as Error);
      this.#connections.delete(connection);
      throw error;
    }
  }

  async #connect(): Promise<RestoreConnection> {
    const { signal } = this.#abort;
    signal.throwIfAborted();
    const connection = await RestoreConnection.open(this.#spec, { clock: this.#clock, signal, ...this.#tools });
    this.#connections.add(connection);
    if (signal.aborted) connection.destroy(signal.reason as Error);
    return connection;
  }
}

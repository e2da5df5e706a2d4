/** A restore lane: one thread that restores one disk at a time, from its cursor on. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';
import type { DiskWriter, Seams } from '../../../schema/domain/seams.ts';
import { openPortCalls, type Port } from '../port-calls.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import { type RestoreCursor, readCursor, writeCursor } from './cursor-file.ts';
import { RestoreConnection } from './restore-connection.ts';
import type { RestoreProgress, RestoreSpec, RestoreSummary } from './restore-spec.ts';

export type RestoreLaneOptions = {
  port: Port;
  seams: Seams;
  openWriter: (access: TargetAccess, seams: Seams) => Promise<DiskWriter>;
  /** For repositories of other machines. */
  secure?: ClientEnd | undefined;
};

/** Target flushed and cursor written each so many windows: what a killed worker restores again at most. */
const WINDOWS_PER_FLUSH = 4;
const LONGEST_BACK_OFF_MS = 10_000;

export function runRestoreLane({ port, seams, openWriter, secure }: RestoreLaneOptions): void {
  let running: DiskRestore | null = null;
  const calls = openPortCalls(port, {
    restore: async (spec: RestoreSpec) => {
      const tell = (p: RestoreProgress): void => calls.notify('progress', { restoreId: spec.restoreId, ...p });
      running = new DiskRestore(spec, seams, tell, secure);
      const writer = await openWriter(spec.target, seams);
      try {
        return await running.run(writer);
      } finally {
        running = null;
        await writer.close();
      }
    },
    stop: () => running?.stop(),
  });
}

class DiskRestore {
  readonly #spec: RestoreSpec;
  readonly #seams: Seams;
  readonly #report: (progress: RestoreProgress) => void;
  readonly #secure: ClientEnd | undefined;
  readonly #abort = new AbortController();
  #connection: RestoreConnection | null = null;
  #writer: DiskWriter | null = null;
  #receivedBytes = 0;
  #writtenBytes = 0;
  #windowsRestored = 0;
  #reconnects = 0;

  constructor(
    spec: RestoreSpec,
    seams: Seams,
    report: (progress: RestoreProgress) => void,
    secure: ClientEnd | undefined,
  ) {
    this.#spec = spec;
    this.#seams = seams;
    this.#report = report;
    this.#secure = secure;
  }

  stop(): void {
    const reason = new TidemarkError('STOPPED', `restore of disk ${this.#spec.diskKey} was stopped`);
    this.#abort.abort(reason);
    this.#connection?.destroy(reason);
    // A flush has no signal of its own, and a target that hangs would hold the lane for ever.
    void this.#writer?.close().catch(() => undefined);
  }

  async run(writer: DiskWriter): Promise<RestoreSummary> {
    this.#writer = writer;
    this.#abort.signal.throwIfAborted();
    const { diskKey, restorePointId, target } = this.#spec;
    const of = { restorePointId, diskKey, sizeBytes: target.sizeBytes };
    let window = await readCursor(target.cursorFile, of);
    let flushed = window;
    let { windowCount } = await this.#withConnection((connection) => Promise.resolve(connection.welcome));
    windowCount = this.#checkSize(windowCount);
    for (; window < windowCount; window += 1) {
      this.#receivedBytes += await this.#withConnection((connection) => this.#window(connection, window, writer));
      this.#windowsRestored += 1;
      if (window + 1 - flushed >= WINDOWS_PER_FLUSH || window + 1 === windowCount) {
        await this.#flush(writer, { ...of, windowsDone: window + 1 });
        flushed = window + 1;
      }
      this.#tell((window + 1) * 64 * 1024 * 1024, null);
    }
    await writer.flush();
    this.#connection?.close();
    return this.#summary();
  }

  #checkSize(windowCount: number): number {
    const { sizeBytes } = this.#connection!.welcome;
    const { diskKey, target } = this.#spec;
    if (sizeBytes === target.sizeBytes) return windowCount;
    throw new TidemarkError(
      'BAD_DISK',
      `disk ${diskKey} has ${sizeBytes} bytes in the restore point, its target ${target.sizeBytes}`,
      { diskKey },
    );
  }

  async #flush(writer: DiskWriter, cursor: RestoreCursor): Promise<void> {
    await writer.flush();
    await writeCursor(this.#spec.target.cursorFile, cursor);
  }

  #window(connection: RestoreConnection, window: number, writer: DiskWriter): Promise<number> {
    const { signal } = this.#abort;
    return connection.getWindow(window, {
      zero: (offset, length) => writer.zero({ offset, length }, signal),
      write: async (offset, bytes) => {
        await writer.write(offset, bytes, signal);
        this.#writtenBytes += bytes.length;
      },
    });
  }

  /** Opens the connection when there is none; a lost one is opened again, with back-off, for as long as patience lasts. */
  async #withConnection<T>(work: (connection: RestoreConnection) => Promise<T>): Promise<T> {
    const { clock } = this.#seams;
    const startedMs = clock.monotonic();
    for (let backOffMs = 100; ; backOffMs = Math.min(backOffMs * 2, LONGEST_BACK_OFF_MS)) {
      this.#abort.signal.throwIfAborted();
      try {
        this.#connection ??= await RestoreConnection.open(this.#spec, this.#abort.signal, this.#secure);
        return await work(this.#connection);
      } catch (error) {
        this.#connection?.destroy(error as Error);
        this.#connection = null;
        this.#abort.signal.throwIfAborted();
        if (!(error instanceof TidemarkError) || error.details['lost'] !== true) throw error;
        this.#reconnects += 1;
        if (clock.monotonic() - startedMs > this.#spec.patienceMs)
          throw new TidemarkError(
            'TRANSFER_FAILED',
            `disk ${this.#spec.diskKey}: no way to the repository: ${error.message}`,
            { diskKey: this.#spec.diskKey },
            error,
          );
        this.#tell(null, error.message);
        await clock.sleep(backOffMs, this.#abort.signal);
      }
    }
  }

  #bytesDone = 0;
  #tell(bytesDone: number | null, waitsFor: string | null): void {
    const bytesTotal = this.#spec.target.sizeBytes;
    this.#bytesDone = Math.min(bytesTotal, bytesDone ?? this.#bytesDone);
    this.#report({
      bytesDone: this.#bytesDone,
      bytesTotal,
      receivedBytes: this.#receivedBytes,
      writtenBytes: this.#writtenBytes,
      waitsFor,
    });
  }

  #summary(): RestoreSummary {
    const { diskKey, target } = this.#spec;
    return {
      diskKey,
      sizeBytes: target.sizeBytes,
      receivedBytes: this.#receivedBytes,
      writtenBytes: this.#writtenBytes,
      windowsRestored: this.#windowsRestored,
      reconnects: this.#reconnects,
    };
  }
}

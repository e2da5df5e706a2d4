/** A restore lane: one thread that takes windows of any restore from the pool, each over a connection of its own. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';
import type { DiskWriter, Seams } from '../../../schema/domain/seams.ts';
import { openPortCalls, type Port, type PortCalls } from '../port-calls.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import { createFlushBehind, type FlushBehind } from './flush-behind.ts';
import { RestoreConnection } from './restore-connection.ts';
import type { LaneDurable, RestoreItem, RestoreSpec, WindowWritten } from './restore-spec.ts';

export type RestoreLaneOptions = {
  port: Port;
  seams: Seams;
  openWriter: (access: TargetAccess, seams: Seams) => Promise<DiskWriter>;
  /** For repositories of other machines. */
  secure?: ClientEnd | undefined;
};

/** Serves the pool over `port` until the thread ends. */
export function runRestoreLane({ port, seams, openWriter, secure }: RestoreLaneOptions): void {
  const restores = new Map<number, LaneRestore>();
  const calls: PortCalls = openPortCalls(port, {
    begin: (spec: RestoreSpec) => {
      const tell = (durable: LaneDurable): void => calls.notify('durable', durable);
      restores.set(spec.restoreId, new LaneRestore(spec, () => openWriter(spec.target, seams), tell, secure));
    },
    run: (restoreId: number, item: RestoreItem) => {
      const restore = restores.get(restoreId);
      if (!restore) throw new TidemarkError('BUG', `lane knows no restore ${restoreId}`);
      return restore.run(item);
    },
    end: async (restoreId: number, aborted: boolean) => {
      const restore = restores.get(restoreId);
      if (aborted) await restore?.abort();
      else await restore?.finish();
      restores.delete(restoreId);
    },
  });
}

type OpenTarget = { writer: DiskWriter; flushes: FlushBehind };

class LaneRestore {
  readonly #spec: RestoreSpec;
  readonly #open: () => Promise<DiskWriter>;
  readonly #tell: (durable: LaneDurable) => void;
  readonly #secure: ClientEnd | undefined;
  readonly #abort = new AbortController();
  #target: Promise<OpenTarget> | null = null;
  readonly #connections = new Set<RestoreConnection>();
  readonly #idle: RestoreConnection[] = [];

  constructor(
    spec: RestoreSpec,
    open: () => Promise<DiskWriter>,
    tell: (durable: LaneDurable) => void,
    secure: ClientEnd | undefined,
  ) {
    this.#spec = spec;
    this.#open = open;
    this.#tell = tell;
    this.#secure = secure;
  }

  async run({ window }: RestoreItem): Promise<WindowWritten> {
    const target = await (this.#target ??= this.#openTarget());
    const written = await this.#write(window, target);
    await target.flushes.finished(window);
    return written;
  }

  /** All it wrote is durable. */
  async finish(): Promise<void> {
    const target = await this.#target;
    await target?.flushes.idle();
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
    const writer = await this.#open();
    const flushes = createFlushBehind(
      () => writer.flush(),
      (windows) => this.#tell({ restoreId, windows }),
    );
    return { writer, flushes };
  }

  async #write(window: number, { writer, flushes }: OpenTarget): Promise<WindowWritten> {
    const { signal } = this.#abort;
    let writtenBytes = 0;
    const connection = this.#idle.pop() ?? (await this.#connect());
    try {
      const receivedBytes = await connection.getWindow(window, {
        zero: (offset, length) => writer.zero({ offset, length }, signal),
        write: async (offset, bytes) => {
          await writer.write(offset, bytes, signal);
          writtenBytes += bytes.length;
          flushes.wrote(bytes.length);
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
    const connection = await RestoreConnection.open(this.#spec, signal, this.#secure);
    this.#connections.add(connection);
    if (signal.aborted) connection.destroy(signal.reason as Error);
    return connection;
  }
}

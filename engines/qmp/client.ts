/**
 * QMP client: one lasting connection to a monitor of QEMU or `qemu-storage-daemon`. Replies are matched by id, events
 * come in between. A monitor serves one client at a time; a second one hangs without a greeting.
 */
import net from 'node:net';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { MonitorEvent } from '../../schema/domain/seams.ts';
import { createLineSplitter } from './json-lines.ts';

export type QmpOptions = {
  socket: string;
  /** Whose monitor it is, as messages say it: `vm 1234`. */
  owner: string;
  /** Go into the details of every error, beside the socket. */
  details?: Record<string, unknown>;
  /** Milliseconds since the epoch, for the time of events. */
  now: () => number;
  /** Gets every event from the first on. */
  onEvent?: (event: MonitorEvent) => void;
};

export type QmpConnection = {
  /** HYPERVISOR_ERROR with details {command, class, desc} for a refusal; UNREACHABLE, PLATFORM_BUSY as `connectQmp`. */
  execute<T = unknown>(command: string, args?: Record<string, unknown>): Promise<T>;
  /** Resolves when the connection has ended, for whatever reason. */
  closed: Promise<void>;
  close(): void;
};

type Waiter = { command: string; resolve: (value: unknown) => void; reject: (error: Error) => void };
type Message = {
  id?: number;
  return?: unknown;
  error?: { class?: string; desc?: string };
  event?: string;
  data?: Record<string, unknown>;
};

const CONNECT_TIMEOUT_MS = 5_000;
/** To greet and to take capabilities; a monitor that has a client already stays silent for ever. */
const GREETING_TIMEOUT_MS = 5_000;
const COMMAND_TIMEOUT_MS = 120_000;
/** QEMU's answers about many nodes are long. */
const MAX_LINE_BYTES = 16 * 1024 * 1024;

/**
 * VM_OFF: nobody listens on the socket. PLATFORM_BUSY: somebody else is connected, or the process hangs. UNREACHABLE:
 * the connection was lost.
 */
export async function connectQmp(options: QmpOptions): Promise<QmpConnection> {
  const connection = new Connection(options, await connect(options));
  // QEMU answers the first command after its greeting; there is no need to wait for that first.
  await connection.execute('qmp_capabilities', undefined, GREETING_TIMEOUT_MS);
  return {
    execute: async <T>(command: string, args?: Record<string, unknown>) =>
      (await connection.execute(command, args, COMMAND_TIMEOUT_MS)) as T,
    closed: connection.closed,
    close: () => connection.close(),
  };
}

class Connection {
  readonly closed: Promise<void>;
  readonly #options: QmpOptions;
  readonly #socket: net.Socket;
  readonly #waiting = new Map<number, Waiter>();
  #lastId = 0;
  #lost: Error | null = null;

  constructor(options: QmpOptions, socket: net.Socket) {
    this.#options = options;
    this.#socket = socket;
    this.closed = new Promise<void>((resolve) => void socket.once('close', () => resolve()));
    const split = createLineSplitter(MAX_LINE_BYTES);
    socket.on('data', (chunk) => {
      try {
        for (const line of split(chunk)) this.#take(line);
      } catch (error) {
        this.#fail(lost(options, messageOf(error), error));
      }
    });
    socket.on('error', (error) => this.#fail(lost(options, error.message, error)));
    socket.on('close', () => this.#fail(lost(options, 'the connection was closed')));
  }

  execute(command: string, args: Record<string, unknown> | undefined, timeoutMs: number): Promise<unknown> {
    return new Promise((resolve, reject) => {
      if (this.#lost) return reject(this.#lost);
      const id = (this.#lastId += 1);
      const timer = setTimeout(() => this.#fail(silent(this.#options, command, timeoutMs)), timeoutMs);
      const settle = (act: () => void): void => {
        clearTimeout(timer);
        this.#waiting.delete(id);
        act();
      };
      this.#waiting.set(id, {
        command,
        resolve: (value) => settle(() => resolve(value)),
        reject: (error) => settle(() => reject(error)),
      });
      this.#socket.write(`${JSON.stringify({ execute: command, id, ...(args ? { arguments: args } : {}) })}\n`);
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #take(message: Message): void {
    const { now, onEvent } = this.#options;
    if (message.event !== undefined) {
      onEvent?.({ event: message.event, data: message.data ?? {}, atMs: now() });
      return;
    }
    const waiter = message.id === undefined ? undefined : this.#waiting.get(message.id);
    if (!waiter) return;
    if (message.error) waiter.reject(refusal(this.#options, waiter.command, message.error));
    else waiter.resolve(message.return);
  }

  #fail(error: Error): void {
    this.#lost ??= error;
    for (const waiter of this.#waiting.values()) waiter.reject(this.#lost);
    this.#socket.destroy();
  }
}

const connect = (options: QmpOptions): Promise<net.Socket> =>
  new Promise((resolve, reject) => {
    const socket = net.connect(options.socket);
    const refuse = (error: NodeJS.ErrnoException): void => {
      clearTimeout(timer);
      socket.destroy();
      const nobody = error.code === 'ECONNREFUSED' || error.code === 'ENOENT';
      reject(nobody ? nobodyListens(options, error) : lost(options, error.message, error));
    };
    const waitMs = CONNECT_TIMEOUT_MS;
    const timer = setTimeout(() => refuse(new Error(`no connection within ${waitMs} ms`)), waitMs);
    socket.once('error', refuse).once('connect', () => {
      clearTimeout(timer);
      socket.off('error', refuse);
      resolve(socket);
    });
  });

type Named = Pick<QmpOptions, 'socket' | 'owner' | 'details'>;
const about = ({ socket, details }: Named): Record<string, unknown> => ({ ...details, socket });

/** The error of a monitor nobody listens on. */
export const nobodyListens = (options: Named, cause?: unknown): TidemarkError =>
  new TidemarkError(
    'VM_OFF',
    `${options.owner} is off: nobody listens on its monitor ${options.socket}`,
    about(options),
    cause,
  );

const lost = (options: Named, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError(
    'UNREACHABLE',
    `monitor ${options.socket} of ${options.owner} was lost: ${why}`,
    about(options),
    cause,
  );

const silent = (options: Named, command: string, timeoutMs: number): TidemarkError =>
  new TidemarkError(
    'PLATFORM_BUSY',
    `monitor ${options.socket} of ${options.owner} did not answer ${command} within ${timeoutMs} ms: another client may hold it`,
    about(options),
  );

const refusal = (options: Named, command: string, error: { class?: string; desc?: string }): TidemarkError =>
  new TidemarkError(
    'HYPERVISOR_ERROR',
    `${options.owner} refused ${command}: ${error.desc ?? error.class ?? 'no reason'}`,
    { ...about(options), command, class: error.class, desc: error.desc },
  );

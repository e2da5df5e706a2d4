/**
 * NBD client: one connection to one export. Many requests may be in flight; replies are matched by handle and read
 * data goes straight into the caller's buffer. Several connections to one export are the caller's to open.
 */
import { connect, type Socket } from 'node:net';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { Extent } from '../../schema/domain/extents.ts';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import { handshake, type Negotiated } from './client-handshake.ts';
import { type Pending, replies } from './client-replies.ts';
import {
  command,
  commandFlag,
  encodeRequest,
  limits,
  type Parser,
  Pump,
  transmissionFlag,
  type StatusExtent,
} from './codec.ts';

export const describeEndpoint = (at: Endpoint): string => ('unix' in at ? `unix:${at.unix}` : `${at.host}:${at.port}`);

export type NbdConnectOptions = {
  at: Endpoint;
  export: string;
  /** Block status contexts, e.g. `base:allocation`, `qemu:dirty-bitmap:NAME`; each must exist. */
  contexts?: readonly string[];
  /** Ends the handshake, which in any case has 10 s. */
  signal?: AbortSignal;
};

export type NbdClient = {
  readonly sizeBytes: number;
  readonly readOnly: boolean;
  /** Whether several connections see each other's writes. */
  readonly multiConnection: boolean;
  readonly blockSize: Negotiated['blockSize'];
  /** Fills `into` (length `of.length`); split at the server's largest request. An abort rejects and leaves the buffer alone. */
  read(of: Extent, into: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** After an abort, `data` must stay as it is until the connection is closed. */
  write(offset: number, data: Uint8Array, signal?: AbortSignal): Promise<void>;
  /** `keepAllocated`: no hole is made. */
  writeZeroes(of: Extent, options?: { keepAllocated?: boolean }, signal?: AbortSignal): Promise<void>;
  trim(of: Extent, signal?: AbortSignal): Promise<void>;
  flush(signal?: AbortSignal): Promise<void>;
  /** One request: what the server says from `of.offset` on, per context; each may cover less than `of`, never more. */
  blockStatus(of: Extent, signal?: AbortSignal): Promise<Map<string, StatusExtent[]>>;
  /** Covers `of` whole, in order, neighbours of the same flags joined. */
  status(context: string, of: Extent, signal?: AbortSignal): AsyncGenerator<StatusExtent>;
  /** Says goodbye and closes; requests in flight end as UNREACHABLE. */
  close(): Promise<void>;
};

const HANDSHAKE_TIMEOUT_MS = 10_000;
const GOODBYE_MS = 1000;
const KEEP_ALIVE_MS = 30_000;

/**
 * UNREACHABLE: nobody listens, or the connection was lost. HYPERVISOR_ERROR: no such export, or the server reports an
 * error. TRACKING_LOST: a context of `contexts` does not exist. Messages name export and address.
 */
export async function connectNbd(options: NbdConnectOptions): Promise<NbdClient> {
  const connection = new Connection(options);
  const timeout = AbortSignal.timeout(HANDSHAKE_TIMEOUT_MS);
  const deadline = options.signal ? AbortSignal.any([options.signal, timeout]) : timeout;
  const giveUp = (): void => connection.fail(deadline.reason);
  if (deadline.aborted) giveUp();
  deadline.addEventListener('abort', giveUp, { once: true });
  try {
    return asClient(connection, await connection.ready);
  } catch (error) {
    options.signal?.throwIfAborted();
    throw error;
  } finally {
    deadline.removeEventListener('abort', giveUp);
  }
}

type Deferred<T> = { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void };

function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  return { promise, resolve, reject };
}

class Connection {
  readonly what: string;
  readonly ready: Promise<Negotiated>;
  readonly #socket: Socket;
  readonly #pending = new Map<number, Pending>();
  readonly #exportName: string;
  #nextHandle = 1;
  #failure: TidemarkError | null = null;
  readonly #pump: Pump;
  readonly #settleReady: { resolve: (agreed: Negotiated) => void; reject: (error: unknown) => void };

  constructor(options: NbdConnectOptions) {
    this.what = `export ${options.export} on ${describeEndpoint(options.at)}`;
    this.#exportName = options.export;
    const { promise, resolve, reject } = deferred<Negotiated>();
    this.ready = promise;
    this.#settleReady = { resolve, reject };
    this.#pump = new Pump(this.#parse(options.contexts ?? []));
    const address = 'unix' in options.at ? { path: options.at.unix } : { host: options.at.host, port: options.at.port };
    const buffer = Buffer.allocUnsafeSlow(256 * 1024);
    this.#socket = connect({
      ...address,
      noDelay: true,
      keepAlive: true,
      keepAliveInitialDelay: KEEP_ALIVE_MS,
      onread: { buffer, callback: (n, b) => this.#push(b, n) },
    });
    this.#socket.on('error', (error) => this.fail(error));
    this.#socket.on('end', () => this.fail(new Error('the server closed the connection')));
    this.#socket.on('close', () => this.fail(new Error('the connection was closed')));
  }

  *#parse(contexts: readonly string[]): Parser {
    const send = (bytes: Uint8Array): void => void this.#socket.write(bytes);
    const agreed = yield* handshake({ exportName: this.#exportName, contexts, what: this.what, send });
    this.#settleReady.resolve(agreed);
    yield* replies({ what: this.what, contexts: agreed.contexts, pending: this.#pending });
  }

  #push(bytes: Uint8Array, count: number): boolean {
    try {
      this.#pump.push(bytes.subarray(0, count));
    } catch (error) {
      this.fail(error);
    }
    return true;
  }

  /** Ends the connection and everything that waits on it; the first reason counts. */
  fail(cause: unknown): void {
    if (this.#failure) return;
    const text = cause instanceof Error ? cause.message : String(cause);
    this.#failure =
      cause instanceof TidemarkError
        ? cause
        : new TidemarkError('UNREACHABLE', `${this.what}: ${text}`, { export: this.#exportName }, cause);
    this.#settleReady.reject(this.#failure);
    for (const pending of this.#pending.values()) pending.settle(this.#failure);
    this.#pending.clear();
    this.#socket.destroy();
  }

  /** Sends one request and waits for its last reply. */
  async request(
    request: { type: number; offset: number; length: number; flags?: number; payload?: Uint8Array },
    receive: Pick<Pending, 'into' | 'status'>,
    signal: AbortSignal | undefined,
  ): Promise<void> {
    signal?.throwIfAborted();
    if (this.#failure) throw this.#failure;
    const handle = this.#nextHandle;
    this.#nextHandle = handle === 0xffff_ffff ? 1 : handle + 1;
    const { type, offset, length } = request;
    const { promise, resolve, reject } = deferred<void>();
    const settle = (error?: unknown): void => (error === undefined ? resolve() : reject(error));
    const pending: Pending = {
      type,
      offset,
      length,
      received: 0,
      receiving: false,
      error: null,
      dropped: false,
      settle,
      ...receive,
    };
    const abort = (): void => {
      pending.dropped = true;
      if (pending.receiving) this.#pump.divert();
      reject(signal?.reason);
    };
    this.#pending.set(handle, pending);
    signal?.addEventListener('abort', abort, { once: true });
    try {
      this.#send(encodeRequest({ flags: request.flags ?? 0, type, handle, offset, length }), request.payload);
      await promise;
    } finally {
      signal?.removeEventListener('abort', abort);
    }
  }

  #send(head: Buffer, payload: Uint8Array | undefined): void {
    if (!payload) return void this.#socket.write(head);
    this.#socket.cork();
    this.#socket.write(head);
    this.#socket.write(payload);
    this.#socket.uncork();
  }

  async close(): Promise<void> {
    if (this.#failure) return;
    const closed = new Promise((resolve) => this.#socket.once('close', resolve));
    const goodbye = encodeRequest({ flags: 0, type: command.disconnect, handle: 0, offset: 0, length: 0 });
    // A server that is stopped takes no goodbye.
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, GOODBYE_MS);
      this.#socket.write(goodbye, () => {
        clearTimeout(timer);
        resolve();
      });
    });
    this.fail(new Error('the connection was closed by us'));
    await closed;
  }
}

function asClient(connection: Connection, agreed: Negotiated): NbdClient {
  const { sizeBytes, flags, blockSize } = agreed;
  const check = (of: Extent): void => {
    if (of.offset < 0 || of.length < 0 || of.offset + of.length > sizeBytes)
      throw new RangeError(`${connection.what}: ${of.offset}+${of.length} is outside its ${sizeBytes} bytes`);
  };
  const pieces = (of: Extent, most = blockSize.maximum): Extent[] => {
    check(of);
    const list: Extent[] = [];
    for (let at = 0; at < of.length; at += most)
      list.push({ offset: of.offset + at, length: Math.min(most, of.length - at) });
    return list;
  };
  const each = async (of: Extent, most: number, run: (piece: Extent) => Promise<void>): Promise<void> => {
    const list = pieces(of, most);
    if (list.length === 1) return run(list[0]!);
    for (const piece of list) await run(piece);
  };
  const longest = 0x4000_0000;

  const client: NbdClient = {
    sizeBytes,
    readOnly: (flags & transmissionFlag.readOnly) !== 0,
    multiConnection: (flags & transmissionFlag.multiConnection) !== 0,
    blockSize,
    read: (of, into, signal) => {
      if (into.length !== of.length) throw new RangeError(`a buffer of ${into.length} for ${of.length} bytes`);
      return each(of, blockSize.maximum, ({ offset, length }) => {
        const start = offset - of.offset;
        const part = { into: into.subarray(start, start + length) };
        return connection.request({ type: command.read, offset, length }, part, signal);
      });
    },
    write: (offset, data, signal) =>
      each({ offset, length: data.length }, blockSize.maximum, (piece) => {
        const start = piece.offset - offset;
        const payload = data.subarray(start, start + piece.length);
        return connection.request({ type: command.write, ...piece, payload }, {}, signal);
      }),
    writeZeroes: (of, options, signal) => {
      const wish = options?.keepAllocated ? commandFlag.noHole : 0;
      return each(of, longest, (piece) =>
        connection.request({ type: command.writeZeroes, ...piece, flags: wish }, {}, signal),
      );
    },
    trim: (of, signal) =>
      each(of, longest, (piece) => connection.request({ type: command.trim, ...piece }, {}, signal)),
    flush: async (signal) => {
      if ((flags & transmissionFlag.flush) === 0) return;
      await connection.request({ type: command.flush, offset: 0, length: 0 }, {}, signal);
    },
    blockStatus: async (of, signal) => {
      const status = new Map<string, StatusExtent[]>();
      for (const name of agreed.contexts.values()) status.set(name, []);
      if (of.length === 0) return status;
      check(of);
      const length = Math.min(of.length, longest);
      await connection.request({ type: command.blockStatus, offset: of.offset, length }, { status }, signal);
      return status;
    },
    status: (context, of, signal) => walkStatus(client, context, of, signal),
    close: () => connection.close(),
  };
  return client;
}

async function* walkStatus(
  client: NbdClient,
  context: string,
  of: Extent,
  signal: AbortSignal | undefined,
): AsyncGenerator<StatusExtent> {
  const end = of.offset + of.length;
  let open: StatusExtent | null = null;
  for (let at = of.offset; at < end;) {
    const answer = (await client.blockStatus({ offset: at, length: end - at }, signal)).get(context);
    if (!answer)
      throw new TidemarkError('TRACKING_LOST', `block status context ${context} was not agreed`, { context });
    for (const extent of answer) {
      if (open?.flags === extent.flags) open.length += extent.length;
      else {
        if (open) yield open;
        open = { ...extent };
      }
      at = extent.offset + extent.length;
    }
  }
  if (open) yield open;
}

/** Largest request worth sending in one piece. */
export const MAX_REQUEST_BYTES = limits.payloadBytes;

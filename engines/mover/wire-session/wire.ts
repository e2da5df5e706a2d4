/** One end of a wire connection: frames in, frames out, one reason why it ended. For source, target and restore alike. */
import type { Socket } from 'node:net';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { ConnectionEnds } from '../../../schema/domain/networks.ts';
import { FrameDecoder } from '../../../schema/wire/frame.ts';
import { decodeMessage, encodeMessage, type Message } from '../../../schema/wire/messages.ts';
import type { TokenBucket } from '../throttle/token-bucket.ts';
import { deferred } from '../waiting.ts';

/** How long nothing may come of the rest of a begun frame. */
export const FRAME_TIMEOUT_MS = 60_000;

export type WireOptions = {
  socket: Socket;
  /** For messages: which peer, which disk. */
  what: string;
  /** `payload` is valid until it returns. Throwing ends the connection with that error, told to the peer. */
  onMessage(message: Message, payload: Buffer): void;
  /** Called once. Null after a BYE or our own close. */
  onEnd(error: Error | null): void;
  frameTimeoutMs?: number;
  /** How long a peer that owes an answer (`owed`) may say nothing before it counts as lost; default: for ever. */
  silenceMs?: number;
  /** How long a peer may take nothing of a payload that is on its way; default: for ever. */
  stallMs?: number;
};

const READ_BYTES = 256 * 1024;

/** Option `onread` of a client's socket: all it reads goes through one piece of memory. */
export const readInto = (take: (bytes: Buffer) => void): { buffer: Buffer; callback(length: number): boolean } => {
  const buffer = Buffer.allocUnsafeSlow(READ_BYTES);
  const callback = (length: number): boolean => {
    take(buffer.subarray(0, length));
    return true;
  };
  return { buffer, callback };
};

/** Paces a payload, which leaves in pieces. `waiting` goes around whatever is waited for because of that. */
export type Pace = {
  bucket: Pick<TokenBucket, 'take' | 'pieceBytes'>;
  waiting<T>(work: () => Promise<T>): Promise<T>;
};

type BlockMessage = Extract<Message, { type: 'data' | 'block' }>;

export class Wire {
  readonly #options: WireOptions;
  readonly #decoder: FrameDecoder;
  #timer: NodeJS.Timeout | null = null;
  #silence: NodeJS.Timeout | null = null;
  #stall: NodeJS.Timeout | null = null;
  #leavingCount = 0;
  #owedCount = 0;
  /** While a paced payload is on its way, what must not come between waits here. */
  #pacing: Promise<void> | null = null;
  #held: Buffer[] = [];
  #ended = false;
  #leaving = false;
  /** Aborted at its end: nothing waits on to send. */
  readonly #over = new AbortController();

  constructor(options: WireOptions) {
    this.#options = options;
    this.#decoder = new FrameDecoder((frame) => {
      this.#disarm();
      if (!this.#ended) options.onMessage(decodeMessage(frame), frame.payload);
    });
    const { socket } = options;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on('data', (bytes: Buffer<ArrayBuffer>) => {
      this.take(bytes);
      // A piece of memory for each read: the collector is not to count them (see `releaseMemory`).
      if (bytes.byteLength === bytes.buffer.byteLength) bytes.buffer.transfer(0);
    });
    socket.on('error', (error) => this.#lost(error));
    socket.on('end', () =>
      this.#lost(new Error(this.#decoder.inFrame ? 'closed within a frame' : 'closed by the other end')),
    );
    socket.on('close', () => this.#lost(new Error('closed')));
  }

  get ended(): boolean {
    return this.#ended;
  }

  send(message: Message): void {
    this.#silence?.refresh();
    if (this.#ended) return;
    if (this.#pacing) this.#held.push(encodeMessage(message));
    else this.#options.socket.write(encodeMessage(message));
  }

  /** Null: it stays on this machine. */
  get ends(): ConnectionEnds {
    const { localAddress: local, remoteAddress: remote } = this.#options.socket;
    return local === undefined || remote === undefined ? null : { local, remote };
  }

  /** In all, of frames and payloads. */
  get traffic(): { readBytes: number; writtenBytes: number } {
    const { bytesRead, bytesWritten } = this.#options.socket;
    return { readBytes: bytesRead, writtenBytes: bytesWritten };
  }

  /** What the peer owes: a process that is stopped or a network that swallows everything closes no connection. */
  async owed<T>(answer: Promise<T>): Promise<T> {
    this.#owedCount += 1;
    const { silenceMs } = this.#options;
    if (silenceMs !== undefined && !this.#ended) this.#silence ??= setTimeout(() => this.#fallenSilent(), silenceMs);
    try {
      return await answer;
    } finally {
      this.#owedCount -= 1;
      if (this.#owedCount === 0) this.#endSilence();
    }
  }

  /** Resolves when the payload has left: then its memory may be used again. Rejects when the connection is lost first. */
  async sendBlock(message: BlockMessage, payload: Buffer): Promise<void> {
    while (this.#pacing) await this.#pacing;
    await this.#write([encodeMessage(message, payload.length), payload]);
  }

  /**
   * As `sendBlock`, in pieces, each when the pace lets it leave. Other frames wait meanwhile. A connection that fails
   * within is lost for the peer, who gets no reason: it would stand within the payload.
   */
  async sendPaced(message: BlockMessage, payload: Buffer, pace: Pace): Promise<void> {
    while (this.#pacing) await pace.waiting(() => this.#pacing ?? Promise.resolve());
    this.#over.signal.throwIfAborted();
    const over = deferred<void>();
    this.#pacing = over.promise;
    const left: Promise<void>[] = [];
    try {
      for (let at = 0; at < payload.length;) {
        const piece = payload.subarray(at, at + pace.bucket.pieceBytes);
        await pace.waiting(() => pace.bucket.take(piece.length, this.#over.signal));
        const leaving = this.#write(at === 0 ? [encodeMessage(message, payload.length), piece] : [piece]);
        leaving.catch(() => undefined);
        left.push(leaving);
        at += piece.length;
      }
      await Promise.all(left);
    } finally {
      this.#pacing = null;
      for (const frame of this.#held.splice(0)) if (!this.#ended) this.#options.socket.write(frame);
      over.resolve();
    }
  }

  #write(parts: readonly Buffer[]): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#unreachable(new Error('the connection has ended')));
      const { socket } = this.#options;
      this.#silence?.refresh();
      socket.cork();
      for (const part of parts.slice(0, -1)) socket.write(part);
      this.#leaves();
      socket.write(parts.at(-1)!, (error) => {
        this.#hasLeft();
        if (error) reject(this.#unreachable(error));
        else resolve();
      });
      socket.uncork();
    });
  }

  /** Tells the peer why, then closes. */
  fail(error: unknown): void {
    if (this.#ended) return;
    const known = error instanceof TidemarkError ? error : new TidemarkError('BUG', messageOf(error), {}, error);
    if (!this.#pacing)
      this.#options.socket.write(encodeMessage({ type: 'error', code: known.code, message: known.message }));
    this.#finish(known);
  }

  /** Clean end by us: what was sent is still delivered. */
  close(): void {
    this.#leaving = true;
    this.#finish(null);
  }

  /** At once, for an abort or a peer that said why. */
  destroy(error: Error | null): void {
    this.#finish(error);
    this.#options.socket.destroy();
  }

  /** What came, where the socket was opened with `readInto` and says nothing itself. Their memory is not kept. */
  take(bytes: Buffer): void {
    if (this.#ended) return;
    this.#silence?.refresh();
    try {
      this.#decoder.push(bytes);
    } catch (error) {
      return this.fail(error);
    }
    this.#timer?.refresh();
    if (this.#decoder.inFrame && !this.#ended) this.#arm();
    else this.#disarm();
  }

  #arm(): void {
    this.#timer ??= setTimeout(
      () =>
        this.fail(
          // Slow, or one of both was stopped for a while: worth coming again.
          new TidemarkError('UNREACHABLE', `${this.#options.what}: rest of a frame did not come in time`, {
            lost: true,
          }),
        ),
      this.#options.frameTimeoutMs ?? FRAME_TIMEOUT_MS,
    );
  }

  #disarm(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
  }

  /** A peer that stops reading keeps what is on its way for ever, and a connection with it. */
  #leaves(): void {
    this.#leavingCount += 1;
    const { stallMs } = this.#options;
    if (stallMs === undefined) return;
    const lost = (): void => this.destroy(this.#unreachable(new Error(`nothing was taken for ${stallMs} ms`)));
    this.#stall ??= setTimeout(lost, stallMs);
  }

  #hasLeft(): void {
    this.#leavingCount -= 1;
    if (this.#leavingCount === 0) this.#endStall();
    else this.#stall?.refresh();
  }

  #endStall(): void {
    if (this.#stall) clearTimeout(this.#stall);
    this.#stall = null;
  }

  #fallenSilent(): void {
    this.destroy(this.#unreachable(new Error(`nothing was heard for ${this.#options.silenceMs} ms`)));
  }

  #endSilence(): void {
    if (this.#silence) clearTimeout(this.#silence);
    this.#silence = null;
  }

  #unreachable(cause: Error): TidemarkError {
    return new TidemarkError(
      'UNREACHABLE',
      `${this.#options.what}: connection lost: ${cause.message}`,
      { lost: true },
      cause,
    );
  }

  #lost(cause: Error): void {
    // One of ours was not lost: who keeps the socket has ended it, and says why.
    const why = cause instanceof TidemarkError ? cause : this.#unreachable(cause);
    this.#finish(this.#leaving ? null : why);
  }

  #finish(error: Error | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#over.abort(this.#unreachable(error ?? new Error('the connection has ended')));
    this.#disarm();
    this.#endSilence();
    this.#endStall();
    this.#options.socket.end();
    // A peer that does not close its side must not hold ours open.
    setTimeout(() => this.#options.socket.destroy(), 1000).unref();
    this.#options.onEnd(error);
  }
}

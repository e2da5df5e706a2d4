/** One end of a wire connection: frames in, frames out, one reason why it ended. For source, target and restore alike. */
import type { Socket } from 'node:net';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { FrameDecoder } from '../../../schema/wire/frame.ts';
import { decodeMessage, encodeMessage, type Message } from '../../../schema/wire/messages.ts';

/** How long the rest of a begun frame may take. */
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
};

export class Wire {
  readonly #options: WireOptions;
  readonly #decoder: FrameDecoder;
  #timer: NodeJS.Timeout | null = null;
  #ended = false;
  #leaving = false;

  constructor(options: WireOptions) {
    this.#options = options;
    this.#decoder = new FrameDecoder((frame) => {
      this.#disarm();
      if (!this.#ended) options.onMessage(decodeMessage(frame), frame.payload);
    });
    const { socket } = options;
    socket.setNoDelay(true);
    socket.setKeepAlive(true, 30_000);
    socket.on('data', (bytes) => this.#push(bytes));
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
    if (!this.#ended) this.#options.socket.write(encodeMessage(message));
  }

  /** Resolves when the payload has left: then its memory may be used again. Rejects when the connection is lost first. */
  sendBlock(message: Extract<Message, { type: 'data' | 'block' }>, payload: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(this.#unreachable(new Error('the connection has ended')));
      const { socket } = this.#options;
      socket.cork();
      socket.write(encodeMessage(message, payload.length));
      socket.write(payload, (error) => (error ? reject(this.#unreachable(error)) : resolve()));
      socket.uncork();
    });
  }

  /** Tells the peer why, then closes. */
  fail(error: unknown): void {
    if (this.#ended) return;
    const known = error instanceof TidemarkError ? error : new TidemarkError('BUG', messageOf(error), {}, error);
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

  #push(bytes: Buffer): void {
    if (this.#ended) return;
    try {
      this.#decoder.push(bytes);
    } catch (error) {
      return this.fail(error);
    }
    if (this.#decoder.inFrame && !this.#ended) this.#arm();
    else this.#disarm();
  }

  #arm(): void {
    this.#timer ??= setTimeout(
      () =>
        this.fail(
          new TidemarkError('PROTOCOL_ERROR', `${this.#options.what}: rest of a frame did not come in time`, {
            field: 'frame',
          }),
        ),
      this.#options.frameTimeoutMs ?? FRAME_TIMEOUT_MS,
    );
  }

  #disarm(): void {
    if (this.#timer) clearTimeout(this.#timer);
    this.#timer = null;
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
    this.#finish(this.#leaving ? null : this.#unreachable(cause));
  }

  #finish(error: Error | null): void {
    if (this.#ended) return;
    this.#ended = true;
    this.#disarm();
    this.#options.socket.end();
    // A peer that does not close its side must not hold ours open.
    setTimeout(() => this.#options.socket.destroy(), 1000).unref();
    this.#options.onEnd(error);
  }
}

/** A source lane's connection for one disk: offers, data under credit, windows acknowledged. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { TransferCursor } from '../../../schema/domain/seams.ts';
import type { BlockHead, Message, Offer, Welcome, WindowEnd, WireAnswer } from '../../../schema/wire/messages.ts';
import { ByteBudget, deferred, type Deferred } from '../waiting.ts';
import { openWire, versions } from '../wire-session/open-wire.ts';
import type { Wire } from '../wire-session/wire.ts';

export type WantedBlock = { window: number; block: number };

export class SourceConnection {
  #wire: Wire | null = null;
  #welcome: Welcome | null = null;
  #failure: Error | null = null;
  #credit = new ByteBudget(0);
  readonly #answers = new Map<number, Deferred<WireAnswer[]>>();
  #acknowledged: (Deferred<void> & { firstWindow: number; count: number }) | null = null;
  #onWant: ((wanted: WantedBlock) => void) | null = null;

  /** UNREACHABLE with details.lost: try again later; other codes are the target's refusal. */
  static async open(assignment: TransferAssignment): Promise<SourceConnection> {
    const { restorePointId, run, diskKey, fence, sizeBytes, blockSize } = assignment;
    const connection = new SourceConnection();
    const hello = { restorePointId, run, diskKey, fence, sizeBytes, blockSize, creditBytes: 0, ...versions };
    const opened = await openWire(
      assignment.endpoint,
      { type: 'hello', purpose: 'backup', ...hello },
      { onMessage: (message) => connection.#receive(message), onEnd: (error) => connection.#end(error) },
    );
    connection.#wire = opened.wire;
    connection.#welcome = opened.welcome;
    connection.#credit.give(opened.welcome.creditBytes);
    return connection;
  }

  get alive(): boolean {
    return this.#failure === null;
  }

  get cursor(): TransferCursor {
    const { lowWater, above, windowCount } = this.#welcome!;
    return { lowWater, above, windowCount };
  }

  async offer(offer: Omit<Offer, 'type'>): Promise<WireAnswer[]> {
    if (this.#failure) throw this.#failure;
    const answers = deferred<WireAnswer[]>();
    this.#answers.set(offer.firstBlock, answers);
    this.#wire!.send({ type: 'offer', ...offer });
    return answers.promise;
  }

  /** Resolves when the payload has left. */
  async sendData(head: BlockHead, payload: Buffer): Promise<void> {
    await this.#credit.take(payload.length);
    await this.#wire!.sendBlock({ type: 'data', ...head }, payload);
  }

  /** Resolves when the window is durable. `onWant`: blocks to send again, or after all, until then. */
  async endWindow(window: number, sums: WindowEnd['sums']): Promise<void> {
    await this.#expectAck(window, 1, () => this.#wire!.send({ type: 'windowEnd', window, sums }));
  }

  async sendUntouched(firstWindow: number, count: number): Promise<void> {
    await this.#expectAck(firstWindow, count, () => this.#wire!.send({ type: 'untouched', firstWindow, count }));
  }

  /** Who sends blocks the target wants once more. */
  set onWant(handler: ((wanted: WantedBlock) => void) | null) {
    this.#onWant = handler;
  }

  close(): void {
    this.#wire?.send({ type: 'bye' });
    this.#wire?.close();
  }

  destroy(reason: Error): void {
    this.#wire?.destroy(reason);
  }

  async #expectAck(firstWindow: number, count: number, send: () => void): Promise<void> {
    if (this.#failure) throw this.#failure;
    const acknowledged = { ...deferred<void>(), firstWindow, count };
    this.#acknowledged = acknowledged;
    send();
    await acknowledged.promise;
  }

  #receive(message: Message): void {
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- all other frames are refused alike
    switch (message.type) {
      case 'answer': {
        const waiter = this.#answers.get(message.firstBlock);
        this.#answers.delete(message.firstBlock);
        if (!waiter) throw unexpected('ANSWER', message.firstBlock);
        return waiter.resolve(message.answers);
      }
      case 'credit':
        return this.#credit.give(message.bytes);
      case 'want':
        if (!this.#onWant) throw unexpected('WANT', message.block);
        return this.#onWant(message);
      case 'ack': {
        const waiter = this.#acknowledged;
        this.#acknowledged = null;
        if (waiter?.firstWindow !== message.firstWindow || waiter.count !== message.count)
          throw unexpected('ACK', message.firstWindow);
        return waiter.resolve();
      }
      default:
        throw unexpected('frame', message.type);
    }
  }

  #end(error: Error | null): void {
    this.#failure = error ?? new TidemarkError('UNREACHABLE', 'the target closed the connection', { lost: true });
    this.#credit.fail(this.#failure);
    for (const waiter of this.#answers.values()) waiter.reject(this.#failure);
    this.#answers.clear();
    this.#acknowledged?.reject(this.#failure);
  }
}

const unexpected = (frame: string, found: string | number): TidemarkError =>
  new TidemarkError('PROTOCOL_ERROR', `frame refused: ${frame} ${found} was not asked for`, { field: frame });

/** A source lane's connection for one disk: offers, data under credit, windows acknowledged. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { AuditAnswers, AuditStep, TransferCursor } from '../../../schema/domain/seams.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import {
  type BlockHead,
  type Message,
  MIN_CREDIT_BYTES,
  type Offer,
  type Welcome,
  type WindowEnd,
  type WireAnswer,
} from '../../../schema/wire/messages.ts';
import type { HoldBack } from '../stage-clock.ts';
import { TokenBucket } from '../throttle/token-bucket.ts';
import { ByteBudget, deferred, type Deferred } from '../waiting.ts';
import { openWire, versions } from '../wire-session/open-wire.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import type { Wire } from '../wire-session/wire.ts';

export type WantedBlock = { window: number; block: number };
/** `busyMs`: that the target was at work on it. */
type Acknowledged = { isSame: boolean; busyMs: number };
type Offered = Deferred<WireAnswer[]> & { window: number; count: number };

export class SourceConnection {
  #wire: Wire | null = null;
  #welcome: Welcome | null = null;
  #failure: Error | null = null;
  #credit = new ByteBudget(0);
  readonly #bucket = new TokenBucket();
  #limit = '';
  readonly #answers = new Map<number, Offered>();
  /** A compared window may differ. */
  #acknowledged: (Deferred<Acknowledged> & { firstWindow: number; count: number; isCompared: boolean }) | null = null;
  #auditStep: Deferred<AuditStep> | null = null;
  #onWant: ((wanted: WantedBlock) => void) | null = null;
  #onLimit: (() => void) | null = null;

  /**
   * UNREACHABLE with details.lost: try again later; other codes are the target's refusal. `silenceMs`: a target that owes
   * something and says nothing for so long counts as lost. The signal ends the opening only.
   */
  static async open(
    assignment: TransferAssignment,
    { silenceMs, signal, secure }: { silenceMs: number; signal: AbortSignal; secure?: ClientEnd | undefined },
  ): Promise<SourceConnection> {
    const { restorePointId, run, diskKey, fence, sizeBytes, blockSize, grant } = assignment;
    const connection = new SourceConnection();
    const hello = { restorePointId, run, diskKey, fence, sizeBytes, blockSize, creditBytes: 0, ...versions };
    const opened = await openWire(
      assignment.endpoint,
      { type: 'hello', purpose: 'backup', ...hello, ...(grant === undefined ? {} : { token: grant }) },
      {
        onMessage: (message) => connection.#receive(message),
        onEnd: (error) => connection.#end(error),
        silenceMs,
        signal,
        secure,
      },
    );
    const wrong = mismatchOf(opened.welcome, assignment);
    if (wrong) {
      opened.wire.fail(wrong);
      throw wrong;
    }
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

  /** Before the first window. */
  get auditDue(): boolean {
    return this.#welcome!.auditDue;
  }

  async beginAudit(changedBytes: number): Promise<AuditStep> {
    return await this.#askAudit({ type: 'audit', changedBytes });
  }

  /** AUDIT_MISMATCH. */
  async goOnAudit(answers: AuditAnswers): Promise<AuditStep> {
    return await this.#askAudit({ type: 'auditAnswer', ...answers });
  }

  async offer(offer: Omit<Offer, 'type'>): Promise<WireAnswer[]> {
    if (this.#failure) throw this.#failure;
    const { window, firstBlock, classes } = offer;
    const answers = { ...deferred<WireAnswer[]>(), window, count: classes.length };
    this.#answers.set(firstBlock, answers);
    this.#wire!.send({ type: 'offer', ...offer });
    return await this.#wire!.owed(answers.promise);
  }

  /** What holds it back, in words; null: nothing. */
  get limit(): string | null {
    return this.#bucket.isLimited ? this.#limit : null;
  }

  /** Resolves when the payload has left. `holdBack` goes around what is waited for because of the rate. */
  async sendData(head: BlockHead, payload: Buffer, holdBack: HoldBack): Promise<void> {
    const wire = this.#wire!;
    const message = { type: 'data' as const, ...head };
    await wire.owed(this.#credit.take(payload.length));
    try {
      const pace = { bucket: this.#bucket, waiting: holdBack };
      await wire.owed(
        this.#bucket.isLimited ? wire.sendPaced(message, payload, pace) : wire.sendBlock(message, payload),
      );
    } catch (error) {
      // What the target said when it ended the connection tells more than a write that came too late.
      throw this.#failure ?? error;
    }
  }

  /** Resolves when the window is durable, with the ms the target was at work on it. */
  async endWindow(window: number, sums: WindowEnd['sums']): Promise<number> {
    const send = (): void => this.#wire!.send({ type: 'windowEnd', window, sums });
    return (await this.#expectAck(window, 1, send)).busyMs;
  }

  /** `digest`: over the entries of all blocks of the window. `isSame`: it is as in the base, and durable. */
  async compareWindow(window: number, digest: Buffer, sums: WindowEnd['sums']): Promise<Acknowledged> {
    const message = { type: 'windowDigest', window, digest, sums } as const;
    return await this.#expectAck(window, 1, () => this.#wire!.send(message), true);
  }

  /** As `endWindow`. */
  async sendUntouched(firstWindow: number, count: number): Promise<number> {
    const send = (): void => this.#wire!.send({ type: 'untouched', firstWindow, count });
    return (await this.#expectAck(firstWindow, count, send)).busyMs;
  }

  /** Who sends blocks the target wants once more. */
  set onWant(handler: ((wanted: WantedBlock) => void) | null) {
    this.#onWant = handler;
  }

  /** Who hears of another `limit`. */
  set onLimit(handler: (() => void) | null) {
    this.#onLimit = handler;
  }

  close(): void {
    this.#wire?.send({ type: 'bye' });
    this.#wire?.close();
  }

  destroy(reason: Error): void {
    this.#wire?.destroy(reason);
  }

  async #askAudit(message: Message): Promise<AuditStep> {
    if (this.#failure) throw this.#failure;
    const step = (this.#auditStep = deferred<AuditStep>());
    this.#wire!.send(message);
    return await this.#wire!.owed(step.promise);
  }

  async #expectAck(firstWindow: number, count: number, send: () => void, isCompared = false): Promise<Acknowledged> {
    if (this.#failure) throw this.#failure;
    const acknowledged = { ...deferred<Acknowledged>(), firstWindow, count, isCompared };
    this.#acknowledged = acknowledged;
    send();
    return await this.#wire!.owed(acknowledged.promise);
  }

  #receive(message: Message): void {
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- all other frames are refused alike
    switch (message.type) {
      case 'answer': {
        const waiter = this.#answers.get(message.firstBlock);
        if (waiter?.window !== message.window || waiter.count !== message.answers.length)
          throw unexpected('ANSWER', message.firstBlock);
        this.#answers.delete(message.firstBlock);
        return waiter.resolve(message.answers);
      }
      case 'credit':
        return this.#credit.give(message.bytes);
      case 'rate':
        this.#limit = message.limit;
        this.#bucket.rate = message.bytesPerSecond;
        return this.#onLimit?.();
      case 'want':
        if (!this.#onWant) throw unexpected('WANT', message.block);
        return this.#onWant(message);
      case 'ack': {
        const waiter = this.#acknowledged;
        if (waiter?.firstWindow !== message.firstWindow || waiter.count !== message.count)
          throw unexpected('ACK', message.firstWindow);
        this.#acknowledged = null;
        return waiter.resolve({ isSame: true, busyMs: message.busyMs });
      }
      case 'windowDiffers': {
        const waiter = this.#acknowledged;
        if (!waiter?.isCompared || waiter.firstWindow !== message.window)
          throw unexpected('WINDOW_DIFFERS', message.window);
        this.#acknowledged = null;
        return waiter.resolve({ isSame: false, busyMs: 0 });
      }
      case 'auditSample': {
        const waiter = this.#auditStep;
        if (!waiter) throw unexpected('AUDIT_SAMPLE', message.audited);
        this.#auditStep = null;
        return waiter.resolve({ audited: message.audited, wanted: message.wanted, blocks: message.blocks });
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
    this.#auditStep?.reject(this.#failure);
  }
}

/** A target that speaks of another disk, or grants less than one block may need. */
function mismatchOf(welcome: Welcome, { sizeBytes, blockSize }: TransferAssignment): TidemarkError | null {
  const windowCount = windowCountOf(sizeBytes);
  if (welcome.sizeBytes !== sizeBytes) return refuse('WELCOME size', welcome.sizeBytes, String(sizeBytes));
  if (welcome.blockSize !== blockSize) return refuse('WELCOME block size', welcome.blockSize, String(blockSize));
  if (welcome.windowCount !== windowCount) return refuse('WELCOME windows', welcome.windowCount, String(windowCount));
  if (welcome.creditBytes >= MIN_CREDIT_BYTES) return null;
  return refuse('WELCOME credit', welcome.creditBytes, `at least ${MIN_CREDIT_BYTES}`);
}

const unexpected = (frame: string, found: string | number): TidemarkError =>
  new TidemarkError('PROTOCOL_ERROR', `frame refused: ${frame} ${found} was not asked for`, { field: frame });

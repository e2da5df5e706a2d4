/** The target's side of one backup connection: offers to the registrar, payloads to the pack, windows made durable. */
import { windowCountOf } from '../../../schema/domain/extents.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { releaseMemory } from '../../../schema/domain/memory.ts';
import type {
  AuditStep,
  OfferAnswer,
  RecordSink,
  Seams,
  TransferHello,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import type { BlockHead, Message, Offer, WindowDigest, WindowEnd } from '../../../schema/wire/messages.ts';
import { decodeBlock, digestOf } from '../block-codec.ts';
import type { Grant } from '../throttle/grants.ts';
import { deferred, type Deferred } from '../waiting.ts';
import type { Wire } from '../wire-session/wire.ts';
import { BackupWindow } from './backup-window.ts';
import { type LaneWork, WorkClock } from './work-clock.ts';

const MAX_DAMAGED = 3;
/** How long a block that another transfer is sending is waited for before it is wanted after all. */
const PENDING_PATIENCE_MS = 2000;
const PENDING_POLL_MS = 50;

export type BackupSessionOptions = {
  connection: string;
  hello: TransferHello;
  /** Before anything of the disk is taken. */
  auditDue: boolean;
  wire: Wire;
  registrar: TransferRegistrar;
  sink: RecordSink;
  work: LaneWork;
  seams: Seams;
};

export class BackupSession {
  readonly #options: BackupSessionOptions;
  readonly #windowCount: number;
  /** Since the frame that the window began with. */
  readonly #clock: WorkClock;
  #window: BackupWindow | null = null;
  #ending = false;
  /** Windows are in work that came as a whole, without offers. */
  #isWhole = false;
  /** A window that was compared and is to be offered: its comparison is a part of the work for it. */
  #differing: number | null = null;
  #auditDue: boolean;
  /** Offers are answered in order, windows end after their offers. */
  #chain = Promise.resolve();
  #allArrived: Deferred<void> | null = null;
  #stopped: Error | null = null;

  constructor(options: BackupSessionOptions) {
    this.#options = options;
    this.#clock = new WorkClock(options.work);
    this.#windowCount = windowCountOf(options.hello.sizeBytes);
    this.#auditDue = options.auditDue;
  }

  /** Synchronous as far as payloads go: their memory is the decoder's. */
  receive(message: Message, payload: Buffer): void {
    const { registrar, connection } = this.#options;
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- all other frames are refused alike
    switch (message.type) {
      case 'audit':
        return this.#audit(() => registrar.beginAudit(connection, message.changedBytes));
      case 'auditAnswer': {
        const answers = { classes: message.classes, digests: Uint8Array.from(message.digests) };
        return this.#audit(() => registrar.goOnAudit(connection, answers));
      }
      case 'offer':
        return this.#takeOffer(message);
      case 'data':
        return this.#takeData(message, payload);
      case 'windowEnd':
        return this.#endWindow(message);
      case 'windowDigest':
        return this.#compareWindow(message);
      case 'untouched':
        return this.#takeUntouched(message.firstWindow, message.count);
      default:
        throw refuse('type', message.type, 'a frame of a backup');
    }
  }

  /** Its client is to send so fast from now on. */
  setGrant({ rateBytesPerSecond, limit }: Grant): void {
    this.#options.wire.send({ type: 'rate', bytesPerSecond: rateBytesPerSecond, limit });
  }

  get usedBytes(): number {
    return this.#options.wire.traffic.readBytes;
  }

  stop(error: Error): void {
    this.#stopped = error;
    this.#allArrived?.reject(error);
  }

  #audit(nextStep: () => Promise<AuditStep>): void {
    if (!this.#auditDue) throw refuse('type', 'AUDIT or AUDIT_ANSWER', 'one that is due');
    this.#then(async () => {
      const step = await nextStep();
      if (step.blocks.length === 0) this.#auditDue = false;
      this.#options.wire.send({ type: 'auditSample', ...step });
    });
  }

  #takeOffer(offer: Offer): void {
    this.#refuseUnaudited('OFFER');
    if (this.#ending || this.#isWhole) throw refuse('type', 'OFFER', 'DATA until the window is acknowledged');
    this.#checkWindow('OFFER window', offer.window, 1);
    const { sizeBytes, blockSize } = this.#options.hello;
    if (!this.#window) {
      if (offer.window !== this.#differing) this.#clock.begin();
      this.#differing = null;
      this.#window = new BackupWindow(offer.window, sizeBytes, blockSize);
    }
    const window = this.#window;
    if (window.index !== offer.window) throw refuse('OFFER window', offer.window, `${window.index}, which is open`);
    const runs = window.take(offer);
    this.#then(() => this.#answerOffer(window, offer, runs));
  }

  async #answerOffer(
    window: BackupWindow,
    offer: Offer,
    runs: { firstBlock: number; digests: Buffer }[],
  ): Promise<void> {
    const { registrar, connection, wire } = this.#options;
    const answers = new Map<number, OfferAnswer>();
    for (const run of runs) {
      const at = window.firstDiskBlock + run.firstBlock;
      const given = await this.#clock.wait(() => registrar.offer(connection, at, Uint8Array.from(run.digests)));
      given.forEach((answer, i) => answers.set(run.firstBlock + i, answer));
    }
    const { firstBlock } = offer;
    const list = offer.classes.map((_, i) => {
      const answer = answers.get(firstBlock + i);
      return answer ? window.answer(firstBlock + i, answer) : ('none' as const);
    });
    wire.send({ type: 'answer', window: window.index, firstBlock, answers: list });
  }

  #takeData(head: BlockHead, payload: Buffer): void {
    const window = this.#window;
    const wanted = window?.wanted.get(head.block);
    if (!window || window.index !== head.window || !wanted)
      throw refuse('DATA block', `${head.block} of window ${head.window}`, 'a wanted block');
    if (head.rawLength !== window.lengthOf(head.block))
      throw refuse('DATA raw length', head.rawLength, String(window.lengthOf(head.block)));
    const { wire, sink, hello } = this.#options;
    const block = decodeBlock(head.codec, payload, head.rawLength);
    const isSound = block !== null && digestOf(block).equals(wanted.digest);
    if (block && head.codec !== 'none') releaseMemory(block);
    if (isSound) {
      const { restorePointId } = hello;
      const record = { digest: wanted.digest, codec: head.codec, rawLength: head.rawLength, payload, restorePointId };
      window.stored(head.block, sink.append(record));
    } else this.#askAgain(window, head.block);
    wire.send({ type: 'credit', bytes: payload.length });
    if (window.wanted.size === 0) this.#allArrived?.resolve();
  }

  #askAgain(window: BackupWindow, block: number): void {
    const { wire, hello, seams } = this.#options;
    const wanted = window.wanted.get(block)!;
    wanted.damaged += 1;
    const where = { diskKey: hello.diskKey, window: window.index, block };
    if (wanted.damaged > MAX_DAMAGED)
      throw new TidemarkError(
        'BAD_PAYLOAD',
        `disk ${hello.diskKey}: block ${block} of window ${window.index} arrived damaged ${wanted.damaged} times`,
        where,
      );
    seams.log.warn('a block arrived damaged and is asked for again', { ...where, attempt: wanted.damaged });
    wire.send({ type: 'want', window: window.index, block, reason: 'damaged', attempt: wanted.damaged });
  }

  #endWindow(message: WindowEnd): void {
    const window = this.#window;
    if (!window || window.index !== message.window || this.#ending)
      throw refuse('WINDOW_END window', message.window, 'the open window');
    this.#ending = true;
    this.#then(async () => {
      await this.#clock.wait(() => this.#resolvePending(window));
      await this.#everythingArrived(window);
      const finished = window.finished(message.sums);
      const { sink, registrar, connection, wire } = this.#options;
      // Blocks first, then the ledger, then the acknowledgement: an acknowledged window survives a power loss.
      await this.#clock.wait(() => sink.sync());
      this.#throwIfStopped();
      await this.#clock.wait(() => registrar.commit(connection, finished));
      this.#window = null;
      this.#ending = false;
      wire.send({ type: 'ack', firstWindow: window.index, count: 1, busyMs: this.#clock.busyMs });
    });
  }

  /** Blocks another transfer was sending: there by now, or wanted after all. */
  async #resolvePending(window: BackupWindow): Promise<void> {
    const { registrar, connection, seams, wire } = this.#options;
    const deadline = seams.clock.monotonic() + PENDING_PATIENCE_MS;
    while (window.pending.size > 0) {
      this.#throwIfStopped();
      const late = seams.clock.monotonic() > deadline;
      for (const block of window.pending) {
        const digest = Uint8Array.from(window.digestOf(block));
        const [answer] = await registrar.offer(connection, window.firstDiskBlock + block, digest);
        if (answer === 'pending' && !late) continue;
        window.pending.delete(block);
        const wants = answer === 'want' || answer === 'pending';
        if (wants && window.want(block))
          wire.send({ type: 'want', window: window.index, block, reason: 'not-pending', attempt: 1 });
      }
      if (window.pending.size > 0) await seams.clock.sleep(PENDING_POLL_MS);
    }
  }

  async #everythingArrived(window: BackupWindow): Promise<void> {
    this.#throwIfStopped();
    if (window.wanted.size === 0) return;
    this.#allArrived = deferred<void>();
    await this.#allArrived.promise;
    this.#allArrived = null;
  }

  #takeUntouched(firstWindow: number, count: number): void {
    this.#beginWhole('UNTOUCHED', firstWindow, count);
    this.#then(async () => {
      const { registrar, connection, wire } = this.#options;
      await this.#clock.wait(() => registrar.commitUntouched(connection, firstWindow, count));
      this.#isWhole = false;
      wire.send({ type: 'ack', firstWindow, count, busyMs: this.#clock.busyMs });
    });
  }

  #refuseUnaudited(type: string): void {
    if (this.#auditDue) throw refuse('type', type, 'AUDIT, AUDIT_ANSWER or BYE until the audit is over');
  }

  #compareWindow({ window, digest, sums }: WindowDigest): void {
    this.#beginWhole('WINDOW_DIGEST', window, 1);
    this.#then(async () => {
      const { registrar, connection, wire } = this.#options;
      const commit = (): Promise<boolean> => registrar.commitSame(connection, window, Uint8Array.from(digest), sums);
      const isSame = await this.#clock.wait(commit);
      this.#isWhole = false;
      if (!isSame) this.#differing = window;
      const { busyMs } = this.#clock;
      wire.send(isSame ? { type: 'ack', firstWindow: window, count: 1, busyMs } : { type: 'windowDiffers', window });
    });
  }

  #beginWhole(type: string, firstWindow: number, count: number): void {
    this.#refuseUnaudited(type);
    if (this.#window || this.#isWhole) throw refuse('type', type, 'the end of the open window');
    this.#checkWindow(`${type} windows`, firstWindow, count);
    this.#clock.begin();
    this.#isWhole = true;
    this.#differing = null;
  }

  #checkWindow(field: string, first: number, count: number): void {
    if (first + count > this.#windowCount)
      throw refuse(field, `${first}, ${count} of them`, `windows below ${this.#windowCount}`);
  }

  #throwIfStopped(): void {
    if (this.#stopped) throw this.#stopped;
  }

  #then(work: () => Promise<void>): void {
    this.#chain = this.#chain.then(async () => {
      if (this.#stopped) return;
      try {
        await work();
      } catch (error) {
        this.#options.wire.fail(error);
      }
    });
  }
}

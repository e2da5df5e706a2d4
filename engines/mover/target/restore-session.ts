/** The target's side of one restore connection: windows in the order asked, stored payloads as they lie. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf, windowExtent } from '../../../schema/domain/extents.ts';
import { releaseMemory } from '../../../schema/domain/memory.ts';
import type { RecordPlace, RecordSource, RestoreSource } from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import type { Message } from '../../../schema/wire/messages.ts';
import { DIGEST_BYTES } from '../block-codec.ts';
import type { Grant } from '../throttle/grants.ts';
import { TokenBucket } from '../throttle/token-bucket.ts';
import { ByteBudget } from '../waiting.ts';
import type { Wire } from '../wire-session/wire.ts';
import { type LaneWork, WorkClock } from './work-clock.ts';

const MAX_WANTS_PER_BLOCK = 3;
/** Reads begun ahead of the socket. */
const READS_AHEAD = 4;
/** Of one record, of which most have one; it may be moved meanwhile. */
const MOST_PLACES = 8;

const isDamage = (error: unknown): error is TidemarkError =>
  error instanceof TidemarkError && error.disposition === 'damage';

export type RestoreSessionOptions = {
  connection: string;
  wire: Wire;
  source: RestoreSource;
  records: RecordSource;
  disk: { sizeBytes: number; blockSize: number };
  creditBytes: number;
  work: LaneWork;
};
type Resolved = { window: number; digests: Uint8Array; places: (RecordPlace | null)[]; wants: Map<number, number> };

export class RestoreSession {
  readonly #options: RestoreSessionOptions;
  readonly #credit: ByteBudget;
  readonly #bucket = new TokenBucket();
  #resolved: Resolved | null = null;
  #busy = false;
  /** Of the window in work: at work, and held back by a rate. */
  readonly #clock: WorkClock;
  #heldMs = 0;

  constructor(options: RestoreSessionOptions) {
    this.#options = options;
    this.#clock = new WorkClock(options.work);
    this.#credit = new ByteBudget(options.creditBytes);
  }

  receive(message: Message): void {
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- all other frames are refused alike
    switch (message.type) {
      case 'get':
        return this.#start(() => this.#sendWindow(message.window));
      case 'want':
        return this.#start(() => this.#sendAgain(message.window, message.block));
      case 'credit':
        return this.#credit.give(message.bytes);
      default:
        throw refuse('type', message.type, 'GET, WANT, CREDIT or BYE');
    }
  }

  /** It is to send so fast from now on. */
  setGrant({ rateBytesPerSecond }: Grant): void {
    this.#bucket.rate = rateBytesPerSecond;
  }

  get usedBytes(): number {
    return this.#options.wire.traffic.writtenBytes;
  }

  stop(error: Error): void {
    this.#credit.fail(error);
  }

  #start(work: () => Promise<void>): void {
    if (this.#busy) throw refuse('type', 'GET or WANT', 'one of them at a time');
    this.#busy = true;
    const run = async (): Promise<void> => {
      try {
        await work();
      } catch (error) {
        this.#options.wire.fail(error);
      }
    };
    void run();
  }

  async #sendWindow(window: number): Promise<void> {
    const { source, connection, wire, disk } = this.#options;
    const windowCount = windowCountOf(disk.sizeBytes);
    if (window >= windowCount) throw refuse('GET window', window, `below ${windowCount}`);
    this.#clock.begin();
    this.#heldMs = 0;
    const { digests, places } = await this.#clock.wait(() => source.resolve(connection, window));
    const resolved = { window, digests, places, wants: new Map<number, number>() };
    this.#resolved = resolved;
    wire.send({ type: 'entries', window, digests });
    const blocks = [...places.keys()].filter((block) => places[block] !== null);
    const reads: Promise<Uint8Array>[] = [];
    for (const [i, block] of blocks.entries()) {
      for (let ahead = reads.length; ahead < Math.min(blocks.length, i + READS_AHEAD); ahead += 1)
        reads.push(this.#read(resolved, blocks[ahead]!, { unsummed: true }));
      await this.#send(resolved, block, await reads[i]!);
      reads[i] = Promise.resolve(new Uint8Array());
    }
    this.#busy = false;
    wire.send({ type: 'windowDone', window, busyMs: this.#clock.busyMs, heldMs: Math.round(this.#heldMs) });
  }

  /** `unsummed`: the client checks the digest in any case, and says so when it is wrong; then it is seen whose fault it is. */
  #read(resolved: Resolved, block: number, options: { unsummed: boolean }): Promise<Uint8Array> {
    const reading = this.#clock.wait(() => this.#readSound(resolved, block, options));
    reading.catch(() => undefined);
    return reading;
  }

  /** Elsewhere if its pack was rewritten since it was asked for; of several copies any sound one. */
  async #readSound(resolved: Resolved, block: number, options: { unsummed: boolean }): Promise<Uint8Array> {
    const { source, connection, records } = this.#options;
    const digest = resolved.digests.subarray(block * DIGEST_BYTES, (block + 1) * DIGEST_BYTES);
    for (let tries = 1; ; tries += 1) {
      const place = resolved.places[block]!;
      try {
        return await records.read(place, digest, options);
      } catch (error) {
        if (!isDamage(error) || tries >= MOST_PLACES) throw error;
        const { code, message, details } = error;
        resolved.places[block] = await source.damaged(connection, resolved.window, block, place, {
          code,
          message,
          details,
        });
      }
    }
  }

  async #send(resolved: Resolved, block: number, payload: Uint8Array): Promise<void> {
    const { codec, rawLength } = resolved.places[block]!;
    await this.#credit.take(payload.length);
    const bytes = Buffer.from(payload.buffer, payload.byteOffset, payload.length);
    const message = { type: 'block' as const, window: resolved.window, block, codec, rawLength };
    const { wire } = this.#options;
    if (this.#bucket.isLimited)
      await wire.sendPaced(message, bytes, { bucket: this.#bucket, waiting: (work) => this.#heldBack(work) });
    else await wire.sendBlock(message, bytes);
    releaseMemory(payload);
  }

  async #heldBack<T>(work: () => Promise<T>): Promise<T> {
    const fromMs = performance.now();
    try {
      return await work();
    } finally {
      this.#heldMs += performance.now() - fromMs;
    }
  }

  async #sendAgain(window: number, block: number): Promise<void> {
    const resolved = this.#resolved;
    if (resolved?.window !== window || !resolved.places[block])
      throw refuse('WANT block', `${block} of window ${window}`, 'a block of the last window');
    const wants = (resolved.wants.get(block) ?? 0) + 1;
    resolved.wants.set(block, wants);
    const at = windowExtent(window, this.#options.disk.sizeBytes).offset + block * this.#options.disk.blockSize;
    if (wants > MAX_WANTS_PER_BLOCK)
      throw new TidemarkError('BAD_PAYLOAD', `block at byte ${at} was asked for ${wants} times`, { at });
    await this.#send(resolved, block, await this.#read(resolved, block, { unsummed: false }));
    this.#busy = false;
  }
}

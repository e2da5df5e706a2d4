/** The client's side of one restore connection: a window at a time, each digest checked before its block is handed on. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowExtent } from '../../../schema/domain/extents.ts';
import { releaseMemory, takeMemory } from '../../../schema/domain/memory.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import type { BlockHead, Message, Welcome } from '../../../schema/wire/messages.ts';
import { type decodeBlock, DIGEST_BYTES, digestOf } from '../block-codec.ts';
import type { LaneClock } from '../stage-clock.ts';
import { deferred, type Deferred } from '../waiting.ts';
import { openWire, versions } from '../wire-session/open-wire.ts';
import type { ClientEnd } from '../wire-session/secure-ends.ts';
import type { Wire } from '../wire-session/wire.ts';
import type { RestoreSpec } from './restore-spec.ts';
import { WindowStages } from './window-stages.ts';

const CREDIT_BYTES = 8 * 1024 * 1024;
const MAX_WANTS = 3;

/** What a window is made of, in the order of the disk, as far as it is there. Offsets of the disk. */
export type BlockSink = {
  zero(offset: number, length: number): Promise<void>;
  write(offset: number, bytes: Buffer): Promise<void>;
};

/** `clock`: of the restore in this lane. `secure`: for repositories of other machines. */
export type ConnectionOptions = {
  clock: LaneClock;
  signal: AbortSignal;
  decode: typeof decodeBlock;
  secure: ClientEnd | undefined;
};

type WindowTools = Pick<ConnectionOptions, 'clock' | 'decode'>;

export class RestoreConnection {
  #wire!: Wire;
  #welcome!: Welcome;
  #failure: Error | null = null;
  #window: WindowInWork | null = null;
  readonly #tools: WindowTools;

  private constructor({ clock, decode }: WindowTools) {
    this.#tools = { clock, decode };
  }

  /**
   * UNREACHABLE with details.lost: try again later; RESTORE_POINT_NOT_FOUND and others are the target's refusal. BAD_DISK:
   * the target has another size. The signal ends the opening only.
   */
  static async open(spec: RestoreSpec, of: ConnectionOptions): Promise<RestoreConnection> {
    const { signal, secure } = of;
    const connection = new RestoreConnection(of);
    const { restorePointId, run, diskKey } = spec;
    const none = { fence: spec.grantEnd ?? 0, sizeBytes: 0, blockSize: 0 };
    const opened = await openWire(
      spec.endpoint,
      {
        type: 'hello',
        purpose: 'restore',
        ...versions,
        ...none,
        restorePointId,
        run,
        diskKey,
        creditBytes: CREDIT_BYTES,
        ...(spec.grant === undefined ? {} : { token: spec.grant }),
      },
      {
        onMessage: (message, payload) => connection.#receive(message, payload),
        onEnd: (error) => connection.#end(error),
        silenceMs: spec.silenceMs,
        signal,
        secure,
      },
    );
    connection.#wire = opened.wire;
    connection.#welcome = opened.welcome;
    connection.#checkSize(spec);
    return connection;
  }

  #checkSize({ diskKey, target }: RestoreSpec): void {
    const { sizeBytes } = this.#welcome;
    if (sizeBytes === target.sizeBytes) return;
    const message = `disk ${diskKey} has ${sizeBytes} bytes in the restore point, its target ${target.sizeBytes}`;
    const error = new TidemarkError('BAD_DISK', message, { diskKey });
    this.destroy(error);
    throw error;
  }

  /** Resolves with the payload bytes received, once every block of the window is written. */
  async getWindow(window: number, sink: BlockSink): Promise<number> {
    if (this.#failure) throw this.#failure;
    const { sizeBytes, blockSize } = this.#welcome;
    const work = new WindowInWork(window, { sizeBytes, blockSize }, { wire: this.#wire, sink, ...this.#tools });
    this.#window = work;
    this.#wire.send({ type: 'get', window });
    try {
      return await this.#wire.owed(work.finished);
    } finally {
      this.#window = null;
      await work.settled;
      work.leave();
    }
  }

  close(): void {
    this.#wire.send({ type: 'bye' });
    this.#wire.close();
  }

  destroy(reason: Error): void {
    this.#wire.destroy(reason);
  }

  #receive(message: Message, payload: Buffer): void {
    if (!this.#window) throw refuse('type', message.type, 'nothing before GET');
    this.#window.receive(message, payload);
  }

  #end(error: Error | null): void {
    this.#failure = error ?? new TidemarkError('UNREACHABLE', 'the target closed the connection', { lost: true });
    this.#window?.fail(this.#failure);
  }
}

/** To be given back. */
function copyOf(bytes: Buffer): Buffer {
  const copy = takeMemory(bytes.length);
  copy.set(bytes);
  return copy;
}

/** Of a window: one is written, the others are ready when it is. What came well compressed would take many times its credit. */
export const MOST_DECODED = 4;

/** Memory: what the credit lets be on its way, of which a few blocks are decoded; a block's credit goes back once it is written. */
class WindowInWork {
  readonly #window: number;
  readonly #disk: { sizeBytes: number; blockSize: number };
  readonly #wire: Wire;
  readonly #sink: BlockSink;
  readonly #decode: typeof decodeBlock;
  readonly #stages: WindowStages;
  readonly #result: Deferred<number> = deferred<number>();
  #digests: Uint8Array | null = null;
  readonly #missing = new Set<number>();
  readonly #wants = new Map<number, number>();
  readonly #toAsk: number[] = [];
  #asked = false;
  #sent = false;
  #receivedBytes = 0;
  #failed = false;
  #writes = Promise.resolve();
  /** Decoded, and not written yet; beyond so many what came waits as it came. */
  #toWrite = 0;
  readonly #packed = new Map<number, { head: BlockHead; payload: Buffer }>();

  constructor(
    window: number,
    disk: { sizeBytes: number; blockSize: number },
    { wire, sink, clock, decode }: { wire: Wire; sink: BlockSink } & WindowTools,
  ) {
    this.#window = window;
    this.#disk = disk;
    this.#wire = wire;
    this.#sink = sink;
    this.#decode = decode;
    this.#stages = new WindowStages(clock);
  }

  get finished(): Promise<number> {
    return this.#result.promise;
  }

  /** When no write of this window is in work any more. */
  get settled(): Promise<void> {
    return this.#writes;
  }

  fail(error: unknown): void {
    this.#failed = true;
    this.#result.reject(error);
  }

  /** Its time is counted no further. */
  leave(): void {
    this.#stages.leave();
  }

  receive(message: Message, payload: Buffer): void {
    this.#stages.compute(() => this.#take(message, payload));
  }

  #take(message: Message, payload: Buffer): void {
    // oxlint-disable-next-line typescript/switch-exhaustiveness-check -- all other frames are refused alike
    switch (message.type) {
      case 'entries':
        return this.#takeEntries(message.window, message.digests);
      case 'block':
        return this.#takeBlock(message, payload);
      case 'windowDone':
        this.#sent = true;
        this.#stages.toldBy(message);
        return this.#next();
      default:
        throw refuse('type', message.type, 'ENTRIES, BLOCK or WINDOW_DONE');
    }
  }

  #extentOf(block: number): { offset: number; length: number } {
    const extent = windowExtent(this.#window, this.#disk.sizeBytes);
    const start = block * this.#disk.blockSize;
    return { offset: extent.offset + start, length: Math.min(this.#disk.blockSize, extent.length - start) };
  }

  #takeEntries(window: number, digests: Uint8Array): void {
    const count = Math.ceil(windowExtent(this.#window, this.#disk.sizeBytes).length / this.#disk.blockSize);
    if (this.#digests || window !== this.#window || digests.length !== count * DIGEST_BYTES)
      throw refuse(
        'ENTRIES',
        `window ${window}, ${digests.length / DIGEST_BYTES} blocks`,
        `window ${this.#window}, ${count} blocks, once`,
      );
    this.#digests = digests;
    for (let block = 0; block < count; block += 1) {
      if (this.#digestOf(block).some((byte) => byte !== 0)) this.#missing.add(block);
      else this.#zero(block);
    }
  }

  #zero(block: number): void {
    const { offset, length } = this.#extentOf(block);
    this.#write(() => this.#sink.zero(offset, length));
  }

  #digestOf(block: number): Uint8Array {
    return this.#digests!.subarray(block * DIGEST_BYTES, (block + 1) * DIGEST_BYTES);
  }

  #takeBlock(head: BlockHead, payload: Buffer): void {
    if (head.window !== this.#window || !this.#missing.has(head.block) || this.#packed.has(head.block))
      throw refuse('BLOCK block', `${head.block} of window ${head.window}`, 'a block that is missing');
    const { length } = this.#extentOf(head.block);
    if (head.rawLength !== length) throw refuse('BLOCK raw length', head.rawLength, String(length));
    this.#receivedBytes += payload.length;
    // The next frame overwrites the payload.
    if (this.#toWrite < MOST_DECODED) this.#unpack(head, payload);
    else this.#packed.set(head.block, { head, payload: copyOf(payload) });
  }

  #unpack({ block: index, codec }: BlockHead, payload: Buffer): void {
    const { offset, length } = this.#extentOf(index);
    const credit = payload.length;
    const block = this.#decode(codec, payload, length);
    if (!block || !digestOf(block).equals(this.#digestOf(index))) {
      this.#wire.send({ type: 'credit', bytes: credit });
      return this.#askAgain(index);
    }
    this.#missing.delete(index);
    const bytes = codec === 'none' ? copyOf(block) : block;
    this.#toWrite += 1;
    this.#write(async () => {
      await this.#sink.write(offset, bytes);
      releaseMemory(bytes);
      this.#wire.send({ type: 'credit', bytes: credit });
      this.#toWrite -= 1;
      this.#unpackNext();
    });
    if (this.#sent) this.#next();
  }

  #unpackNext(): void {
    while (this.#toWrite < MOST_DECODED) {
      const [next] = this.#packed.values();
      if (!next) return;
      this.#packed.delete(next.head.block);
      this.#stages.compute(() => this.#unpack(next.head, next.payload));
      releaseMemory(next.payload);
    }
  }

  #askAgain(block: number): void {
    const wants = (this.#wants.get(block) ?? 0) + 1;
    this.#wants.set(block, wants);
    const { offset } = this.#extentOf(block);
    if (wants > MAX_WANTS)
      throw new TidemarkError('BAD_PAYLOAD', `block at byte ${offset} arrived damaged ${wants} times`, { offset });
    this.#toAsk.push(block);
    this.#asked = false;
    if (this.#sent) this.#next();
  }

  /** After the target has sent all: ask for what was damaged, one at a time, then wait for the writes. */
  #next(): void {
    if (this.#packed.size > 0) return;
    const block = this.#toAsk[0];
    if (block === undefined) return this.#finish();
    if (this.#asked && this.#missing.has(block)) return;
    if (!this.#missing.has(block)) {
      this.#toAsk.shift();
      this.#asked = false;
      return this.#next();
    }
    this.#asked = true;
    this.#wire.send({ type: 'want', window: this.#window, block, reason: 'damaged', attempt: this.#wants.get(block)! });
  }

  #finish(): void {
    if (!this.#digests || this.#missing.size > 0)
      throw refuse('WINDOW_DONE window', this.#window, 'all blocks of its ENTRIES sent');
    this.#writes = this.#writes.then(() => this.#result.resolve(this.#receivedBytes));
  }

  /** One write at a time, in the order of the disk. */
  #write(work: () => Promise<void>): void {
    const written = this.#stages.write();
    this.#writes = this.#writes.then(async () => {
      try {
        if (!this.#failed) await work();
      } catch (error) {
        this.fail(error);
      } finally {
        written();
      }
    });
  }
}

/** The window a target connection receives: what was offered, what is still to come, what was written. */
import { type Extent, windowExtent } from '../../../schema/domain/extents.ts';
import type { FinishedWindow, OfferAnswer, RecordPlace, SourceClass } from '../../../schema/domain/seams.ts';
import { refuse } from '../../../schema/wire/frame.ts';
import type { Offer, WindowEnd, WireAnswer } from '../../../schema/wire/messages.ts';
import { DIGEST_BYTES } from '../block-codec.ts';

export type Wanted = { digest: Buffer; damaged: number };

export class BackupWindow {
  readonly index: number;
  readonly extent: Extent;
  /** Index in the disk of the window's first block. */
  readonly firstDiskBlock: number;
  readonly #blockSize: number;
  readonly #classes: (SourceClass | null)[];
  readonly #digests: Buffer;
  readonly #records: { digest: Uint8Array; place: RecordPlace }[] = [];
  /** Blocks whose payload is to come. */
  readonly wanted = new Map<number, Wanted>();
  /** Blocks another transfer is sending. */
  readonly pending = new Set<number>();
  /** Digests wanted in this window: a second block of the same content is not asked for. */
  readonly #asked = new Set<string>();

  constructor(index: number, sizeBytes: number, blockSize: number) {
    this.index = index;
    this.extent = windowExtent(index, sizeBytes);
    this.#blockSize = blockSize;
    this.firstDiskBlock = this.extent.offset / blockSize;
    const count = Math.ceil(this.extent.length / blockSize);
    this.#classes = Array.from({ length: count }, () => null);
    this.#digests = Buffer.alloc(count * DIGEST_BYTES);
  }

  lengthOf(block: number): number {
    return Math.min(this.#blockSize, this.extent.length - block * this.#blockSize);
  }

  digestOf(block: number): Buffer {
    return this.#digests.subarray(block * DIGEST_BYTES, (block + 1) * DIGEST_BYTES);
  }

  /** Takes an offer's classes and digests in; each block once. Returns runs of neighbouring data blocks. */
  take(offer: Offer): { firstBlock: number; digests: Buffer }[] {
    const count = offer.classes.length;
    if (offer.firstBlock + count > this.#classes.length)
      throw refuse('OFFER count', count, `${this.#classes.length - offer.firstBlock} from block ${offer.firstBlock}`);
    const runs: { firstBlock: number; count: number }[] = [];
    let data = 0;
    for (const [i, kind] of offer.classes.entries()) {
      const block = offer.firstBlock + i;
      if (this.#classes[block] !== null) throw refuse('OFFER block', block, 'a block that was not offered before');
      this.#classes[block] = kind;
      if (kind !== 'data') continue;
      this.digestOf(block).set(offer.digests.subarray(data * DIGEST_BYTES, (data + 1) * DIGEST_BYTES));
      data += 1;
      const last = runs.at(-1);
      if (last && last.firstBlock + last.count === block) last.count += 1;
      else runs.push({ firstBlock: block, count: 1 });
    }
    return runs.map((run) => ({
      firstBlock: run.firstBlock,
      digests: this.#digests.subarray(run.firstBlock * DIGEST_BYTES, (run.firstBlock + run.count) * DIGEST_BYTES),
    }));
  }

  /** What the source is told about a data block, from the registrar's answer. */
  answer(block: number, answer: OfferAnswer): WireAnswer {
    const digest = this.digestOf(block);
    if (answer === 'have' || answer === 'unchanged') return answer;
    const name = digest.toString('hex');
    if (this.#asked.has(name)) return 'pending';
    if (answer === 'pending') {
      this.pending.add(block);
      return 'pending';
    }
    this.want(block);
    return 'want';
  }

  /** False when the same content was asked for already. */
  want(block: number): boolean {
    const digest = this.digestOf(block);
    const name = digest.toString('hex');
    if (this.#asked.has(name)) return false;
    this.#asked.add(name);
    this.wanted.set(block, { digest, damaged: 0 });
    return true;
  }

  /** A wanted block arrived, sound, and was appended. */
  stored(block: number, place: RecordPlace): void {
    this.#records.push({ digest: Uint8Array.from(this.digestOf(block)), place });
    this.wanted.delete(block);
  }

  /** Throws PROTOCOL_ERROR when a block was never offered or the source's sums disagree with its classes. */
  finished(declared: WindowEnd['sums']): FinishedWindow {
    const sums = { 'not-read': 0, unallocated: 0, zero: 0, data: 0 };
    const classes = this.#classes.map((kind, block) => {
      if (kind === null)
        throw refuse('WINDOW_END window', `${this.index} without block ${block}`, 'all blocks offered');
      sums[kind] += this.lengthOf(block);
      return kind;
    });
    const check = (field: keyof WindowEnd['sums'], sum: number): void => {
      if (declared[field] !== sum)
        throw refuse(`WINDOW_END ${field}`, declared[field], `${sum}, the sum of the offered blocks`);
    };
    check('notReadBytes', sums['not-read']);
    check('unallocatedBytes', sums.unallocated);
    check('zeroBytes', sums.zero);
    check('dataBytes', sums.data);
    return {
      windowIndex: this.index,
      classes,
      digests: Uint8Array.from(this.#digests),
      records: this.#records,
      declared,
    };
  }
}

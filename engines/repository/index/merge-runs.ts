/** Runs of sorted entries become one, a batch at a time: how segments are made, merged and read from end to end. */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { compareIds, ENTRY_BYTES, prefixAt } from './entry.ts';
import type { Delta } from './delta.ts';
import { PAGE_BYTES } from './segment-format.ts';
import type { Segment } from './segment.ts';

const BATCH_ENTRIES = 4096;
const ENTRY_WORDS = ENTRY_BYTES / 4;
/** Of the buffers of all segments that are read at once. */
const READ_BYTES = 8 * 1024 * 1024;
const MOST_PAGES = 256;
const PART_ENTRIES = 8192;

/** Packed entries in id order, of one id the older first; a batch is valid until the next is asked for. */
export type EntryRun = AsyncIterator<Buffer, void>;

/** Side by side with `segmentCount - 1` others. */
export async function* segmentRun(segment: Segment, segmentCount: number): AsyncGenerator<Buffer, void> {
  const pagesAtOnce = Math.max(1, Math.min(MOST_PAGES, Math.floor(READ_BYTES / PAGE_BYTES / segmentCount)));
  const buffer = Buffer.alloc(pagesAtOnce * PAGE_BYTES);
  for (let page = 0; page < segment.pageCount; page += pagesAtOnce) {
    const count = Math.min(pagesAtOnce, segment.pageCount - page);
    yield buffer.subarray(0, await segment.readEntries(page, count, buffer));
  }
}

/** Of what the delta has when it is called, the entries whose packs are asked for. */
export function deltaRun(delta: Delta, ofPack: (pack: number) => boolean): AsyncGenerator<Buffer, void> {
  return partsOf(delta, delta.count, ofPack);
}

/** In pieces, so that no turn takes long. */
async function* partsOf(delta: Delta, count: number, ofPack: (pack: number) => boolean): AsyncGenerator<Buffer, void> {
  const bits = Math.max(1, Math.ceil(Math.log2(count / PART_ENTRIES)));
  const parts = Array.from({ length: 2 ** bits }, (): number[] => []);
  for (let from = 0; from < count; from += PART_ENTRIES) {
    delta.deal(from, Math.min(count, from + PART_ENTRIES), ofPack, parts);
    await nextTurn();
  }
  for (const part of parts) {
    const batch = Buffer.alloc(part.length * ENTRY_BYTES);
    for (const [at, number] of delta.order(part).entries()) {
      const base = delta.baseOf(number);
      delta.chunkOf(number).copy(batch, at * ENTRY_BYTES, base, base + ENTRY_BYTES);
    }
    if (batch.byteLength > 0) yield batch;
    await nextTurn();
  }
}

/** `runs`: the older first. All entries of one id are in one batch; only those are taken that `keep` says. */
export async function* mergeRuns(
  runs: readonly EntryRun[],
  keep: (bytes: Buffer, base: number) => boolean,
): AsyncGenerator<Buffer, void> {
  const heads: Head[] = [];
  for (const run of runs) {
    const head = new Head(run);
    if (await head.refill()) heads.push(head);
  }
  const batch = new Batch();
  while (heads.length > 0) {
    const head = leastOf(heads);
    if (keep(head.bytes, head.base)) {
      if (batch.isFull() && !batch.endsWithIdOf(head)) yield batch.take();
      batch.add(head);
    }
    if (!head.advance() && !(await head.refill())) heads.splice(heads.indexOf(head), 1);
  }
  if (!batch.isEmpty()) yield batch.take();
}

/** Where a run is. */
class Head {
  bytes: Buffer = Buffer.alloc(0);
  words: Uint32Array = new Uint32Array(0);
  base = 0;
  prefix = 0;
  readonly #run: EntryRun;

  constructor(run: EntryRun) {
    this.#run = run;
  }

  /** False when the bytes at hand are at their end. */
  advance(): boolean {
    this.base += ENTRY_BYTES;
    if (this.base >= this.bytes.byteLength) return false;
    this.prefix = prefixAt(this.bytes, this.base);
    return true;
  }

  /** False when the run is at its end. */
  async refill(): Promise<boolean> {
    const next = await this.#run.next();
    if (next.done) return false;
    this.bytes = next.value;
    this.words = new Uint32Array(this.bytes.buffer, this.bytes.byteOffset, this.bytes.byteLength / 4);
    this.base = 0;
    this.prefix = prefixAt(this.bytes, 0);
    return true;
  }
}

/** The oldest of those with the least id. */
function leastOf(heads: readonly Head[]): Head {
  let least = heads[0]!;
  for (let at = 1; at < heads.length; at += 1) {
    const head = heads[at]!;
    if (head.prefix > least.prefix) continue;
    if (head.prefix < least.prefix || compareIds(head.bytes, head.base, least.bytes, least.base) < 0) least = head;
  }
  return least;
}

class Batch {
  #words = new Uint32Array(BATCH_ENTRIES * ENTRY_WORDS);
  #count = 0;

  isEmpty = (): boolean => this.#count === 0;
  isFull = (): boolean => this.#count >= BATCH_ENTRIES - 1;

  /** Word by word: a call for each entry takes several times as long. */
  add(head: Head): void {
    if ((this.#count + 1) * ENTRY_WORDS > this.#words.length) this.#grow();
    const to = this.#count * ENTRY_WORDS;
    const from = head.base / 4;
    for (let at = 0; at < ENTRY_WORDS; at += 1) this.#words[to + at] = head.words[from + at]!;
    this.#count += 1;
  }

  endsWithIdOf(head: Head): boolean {
    const last = this.#bytes().subarray((this.#count - 1) * ENTRY_BYTES);
    return compareIds(last, 0, head.bytes, head.base) === 0;
  }

  take(): Buffer {
    const bytes = this.#bytes();
    this.#count = 0;
    return bytes;
  }

  #bytes(): Buffer {
    return Buffer.from(this.#words.buffer, 0, this.#count * ENTRY_BYTES);
  }

  #grow(): void {
    const longer = new Uint32Array(this.#words.length * 2);
    longer.set(this.#words);
    this.#words = longer;
  }
}

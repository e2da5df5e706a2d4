/** Reads the index from end to end. */
import { DIGEST_BYTES } from '../../../schema/repository/limits.ts';
import { compareIds, decodeEntry, ENTRY_BYTES, isPageAt, packAt, prefixAt, type IndexEntry } from './entry.ts';
import { isSoundAt, type IndexState } from './index-state.ts';
import { deltaRun, mergeRuns, segmentRun } from './merge-runs.ts';

/** Valid until the next batch is asked for. */
export class EntryBatch {
  readonly #bytes: Buffer;
  readonly #nameOf: (pack: number) => string | undefined;

  constructor(bytes: Buffer, nameOf: (pack: number) => string | undefined) {
    this.#bytes = bytes;
    this.#nameOf = nameOf;
  }

  get count(): number {
    return this.#bytes.byteLength / ENTRY_BYTES;
  }

  /** A view of 32 bytes. */
  idOf(at: number): Buffer {
    return this.#bytes.subarray(at * ENTRY_BYTES, at * ENTRY_BYTES + DIGEST_BYTES);
  }

  /** The pack's name is empty when it was dropped since the batch was read. */
  read(at: number): IndexEntry {
    const base = at * ENTRY_BYTES;
    return decodeEntry(this.#bytes, base, this.#nameOf(packAt(this.#bytes, base)) ?? '');
  }
}

/** `broke`: told of a segment that cannot be read; what to throw for it. */
export async function* readEntries(
  state: IndexState,
  broke: (error: unknown) => unknown,
): AsyncGenerator<EntryBatch, void> {
  const segments = [...state.segments];
  // Before anything is awaited: from here they stay readable, whatever becomes of the index.
  for (const segment of segments) segment.retain();
  const covered = new Set(state.covered);
  const delta = deltaRun(state.delta, (pack) => !covered.has(pack));
  try {
    const runs = [...segments.map((segment) => segmentRun(segment, segments.length)), delta];
    for await (const bytes of mergeRuns(runs, (bytes, base) => isSoundAt(state, bytes, base)))
      yield new EntryBatch(answeredFirst(bytes), state.packs.nameOf);
  } catch (error) {
    throw broke(error);
  } finally {
    for (const segment of segments) await segment.release();
  }
}

/** Of the copies of an id the one that is answered comes first: the oldest page, if there is one. */
function answeredFirst(bytes: Buffer): Buffer {
  let first = 0;
  for (let base = ENTRY_BYTES; base < bytes.byteLength; base += ENTRY_BYTES) {
    if (!isSameId(bytes, base, first)) first = base;
    else if (isPageAt(bytes, base) && !isPageAt(bytes, first)) moveUp(bytes, base, first);
  }
  return bytes;
}

const isSameId = (bytes: Buffer, a: number, b: number): boolean =>
  prefixAt(bytes, a) === prefixAt(bytes, b) && compareIds(bytes, a, bytes, b) === 0;

function moveUp(bytes: Buffer, from: number, to: number): void {
  const entry = Buffer.from(bytes.subarray(from, from + ENTRY_BYTES));
  bytes.copy(bytes, to + ENTRY_BYTES, to, from);
  entry.copy(bytes, to);
}

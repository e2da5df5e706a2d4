/** Writes a segment from entries that come sorted. */
import { BloomFilter } from './bloom-filter.ts';
import { ENTRY_BYTES, packAt, prefixAt } from './entry.ts';
import type { IndexFolder, NewIndexFile } from './index-folder.ts';
import {
  encodeTail,
  ENTRIES_PER_PAGE,
  PAGE_BYTES,
  PAGE_HEADER_BYTES,
  sealPage,
  type SegmentTail,
} from './segment-format.ts';
import { openSegment, segmentName, type Segment, type SegmentRef } from './segment.ts';

const OUT_PAGES = 256;

/**
 * The segment, its content durable; null when there was no entry. `batches`: packed entries, sorted by id;
 * `mostEntries`: as many as there can be.
 */
export async function writeSegment(
  folder: IndexFolder,
  ref: SegmentRef,
  batches: AsyncIterable<Buffer>,
  mostEntries: number,
): Promise<Segment | null> {
  const file = await folder.create(segmentName(ref));
  try {
    const builder = new SegmentBuilder(file, ref.salt, mostEntries);
    for await (const batch of batches) await builder.add(batch);
    const tail = await builder.end();
    if (tail.entryCount > 0) await file.append(encodeTail(tail, ref.salt));
    else {
      await file.discard();
      return null;
    }
  } catch (error) {
    await file.discard();
    throw error;
  }
  await file.finish();
  return openSegment(folder, ref);
}

class SegmentBuilder {
  readonly #file: NewIndexFile;
  readonly #salt: number;
  readonly #filter: BloomFilter;
  readonly #fences: Uint32Array;
  readonly #packs = new Map<number, number>();
  readonly #out = Buffer.alloc(OUT_PAGES * PAGE_BYTES);
  #entryCount = 0;
  #pageCount = 0;
  /** Of the page that is being filled. */
  #inPage = 0;
  /** Pages of `#out` that are filled. */
  #filled = 0;

  constructor(file: NewIndexFile, salt: number, mostEntries: number) {
    this.#file = file;
    this.#salt = salt;
    this.#filter = new BloomFilter(Buffer.from(new ArrayBuffer(BloomFilter.bytesFor(mostEntries))));
    this.#fences = new Uint32Array(Math.ceil(mostEntries / ENTRIES_PER_PAGE));
  }

  async add(batch: Buffer): Promise<void> {
    for (let from = 0; from < batch.byteLength;) {
      if (this.#inPage === 0) this.#fences[this.#pageCount] = prefixAt(batch, from);
      const count = Math.min(ENTRIES_PER_PAGE - this.#inPage, (batch.byteLength - from) / ENTRY_BYTES);
      const to = this.#filled * PAGE_BYTES + PAGE_HEADER_BYTES + this.#inPage * ENTRY_BYTES;
      batch.copy(this.#out, to, from, from + count * ENTRY_BYTES);
      this.#note(batch, from, count);
      from += count * ENTRY_BYTES;
      this.#inPage += count;
      if (this.#inPage === ENTRIES_PER_PAGE) this.#endPage();
      if (this.#filled === OUT_PAGES) await this.#flush();
    }
  }

  async end(): Promise<SegmentTail> {
    if (this.#inPage > 0) this.#endPage();
    await this.#flush();
    const packs = [...this.#packs].sort(([a], [b]) => a - b);
    return {
      entryCount: this.#entryCount,
      fences: this.#fences.subarray(0, this.#pageCount),
      filter: this.#filter,
      packs: {
        numbers: Uint32Array.from(packs, ([number]) => number),
        counts: Uint32Array.from(packs, ([, count]) => count),
      },
    };
  }

  #note(batch: Buffer, from: number, count: number): void {
    for (let base = from; base < from + count * ENTRY_BYTES; base += ENTRY_BYTES) {
      this.#filter.add(batch, base);
      const pack = packAt(batch, base);
      this.#packs.set(pack, (this.#packs.get(pack) ?? 0) + 1);
    }
    this.#entryCount += count;
  }

  #endPage(): void {
    const page = this.#out.subarray(this.#filled * PAGE_BYTES, (this.#filled + 1) * PAGE_BYTES);
    sealPage(page, this.#inPage, this.#salt, this.#pageCount);
    this.#pageCount += 1;
    this.#filled += 1;
    this.#inPage = 0;
  }

  async #flush(): Promise<void> {
    if (this.#filled > 0) await this.#file.append(this.#out.subarray(0, this.#filled * PAGE_BYTES));
    this.#filled = 0;
  }
}

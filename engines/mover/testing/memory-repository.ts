/** Registrar and restore source for tests: maps in memory, ledger in a file so that a killed process comes back. */
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import { blockCountOf, WINDOW_BYTES, windowCountOf } from '../../../schema/domain/extents.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type {
  FinishedWindow,
  OfferAnswer,
  RecordPlace,
  RestoreSource,
  TransferHello,
  TransferRegistrar,
} from '../../../schema/domain/seams.ts';

type Line = {
  window: number;
  count: number;
  classes: string[] | null;
  digests: string;
  records: [string, RecordPlace][];
};
const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

export class MemoryRepository implements TransferRegistrar {
  readonly #ledgerFile: string;
  readonly places = new Map<string, RecordPlace>();
  readonly windows = new Map<number, Line>();
  /** Digest per block of the base, hex: what a comparison calls unchanged. */
  base: Map<number, string> | null = null;
  lowestFence = 0;
  /** Answers given out as pending this often before the truth. */
  pendingAnswers = 0;
  readonly open = new Map<string, TransferHello>();
  hello: TransferHello | null = null;

  constructor(ledgerFile: string) {
    this.#ledgerFile = ledgerFile;
    if (!existsSync(ledgerFile)) return;
    for (const text of readFileSync(ledgerFile, 'utf8').split('\n').filter(Boolean))
      this.#apply(JSON.parse(text) as Line);
  }

  #apply(line: Line): void {
    for (let i = 0; i < line.count; i += 1) this.windows.set(line.window + i, line);
    for (const [id, place] of line.records) this.places.set(id, place);
  }

  #commit(line: Line): void {
    appendFileSync(this.#ledgerFile, `${JSON.stringify(line)}\n`);
    this.#apply(line);
  }

  async begin(connection: string, hello: TransferHello) {
    if (hello.fence < this.lowestFence)
      throw new TidemarkError(
        'FENCED',
        `fence ${hello.fence} of disk ${hello.diskKey} is older than ${this.lowestFence}`,
      );
    this.open.set(connection, hello);
    this.hello = hello;
    const windowCount = windowCountOf(hello.sizeBytes);
    let lowWater = 0;
    while (this.windows.has(lowWater)) lowWater += 1;
    return { lowWater, above: [...this.windows.keys()].filter((w) => w > lowWater).sort((a, b) => a - b), windowCount };
  }

  async offer(_connection: string, firstBlock: number, digests: Uint8Array): Promise<OfferAnswer[]> {
    return Array.from({ length: digests.length / 32 }, (_, i) => {
      const id = hex(digests.subarray(i * 32, i * 32 + 32));
      if (this.base?.get(firstBlock + i) === id) return 'unchanged';
      if (this.places.has(id)) return 'have';
      if (this.pendingAnswers > 0) {
        this.pendingAnswers -= 1;
        return 'pending';
      }
      return 'want';
    });
  }

  async commit(_connection: string, window: FinishedWindow): Promise<void> {
    const records = window.records.map(({ id, place }): [string, RecordPlace] => [hex(id), place]);
    this.#commit({
      window: window.windowIndex,
      count: 1,
      classes: window.classes,
      digests: hex(window.digests),
      records,
    });
  }

  async commitUntouched(_connection: string, window: number, count: number): Promise<void> {
    this.#commit({ window, count, classes: null, digests: '', records: [] });
  }

  async end(connection: string): Promise<void> {
    this.open.delete(connection);
  }

  /** Digest per block, hex; '' where it was not read, 64 zeros for zero. */
  map(sizeBytes: number, blockSize: number): string[] {
    const perWindow = WINDOW_BYTES / blockSize;
    return Array.from({ length: blockCountOf(sizeBytes, blockSize) }, (_, block) => {
      const line = this.windows.get(Math.floor(block / perWindow));
      const at = block % perWindow;
      if (!line) throw new Error(`window of block ${block} is missing`);
      return !line.classes || line.classes[at] === 'not-read' ? '' : line.digests.slice(at * 64, at * 64 + 64);
    });
  }

  restoreSource(sizeBytes: number, blockSize: number): RestoreSource {
    return {
      begin: async () => ({ sizeBytes, blockSize }),
      resolve: async (_connection, windowIndex) => {
        const first = (windowIndex * WINDOW_BYTES) / blockSize;
        const ids = this.map(sizeBytes, blockSize).slice(first, first + WINDOW_BYTES / blockSize);
        const zero = '0'.repeat(64);
        return {
          digests: Buffer.from(ids.join(''), 'hex'),
          places: ids.map((id) => (id === zero ? null : this.places.get(id)!)),
        };
      },
      end: async () => undefined,
    };
  }
}

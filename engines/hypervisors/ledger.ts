/**
 * The host's artifact ledger (invariant 6): what this host's provider is about to make outside us, and what the
 * platform then called it. One JSON record per line, appended and synced; compacted when most of it is history.
 * One process at a time writes it: the worker of the host.
 */
import { mkdir, open, readFile, rename, truncate, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Artifact } from '../../schema/domain/hypervisor.ts';
import type { Log } from '../../schema/domain/seams.ts';

export type LedgerEntry = {
  artifact: Artifact;
  /** 'intent': perhaps made, perhaps not; whoever cleans up must look. */
  state: 'intent' | 'made';
  /** What the platform calls it, where it does not take our name. */
  platformId: string | null;
};

export type ArtifactLedger = {
  /** Durable when it resolves: only then may they be made. Again for the same artifact: no change. */
  intend(artifacts: readonly Artifact[]): Promise<void>;
  made(artifacts: readonly Artifact[], platformId?: string): Promise<void>;
  /** After they are gone. Not in the ledger: success. */
  remove(artifacts: readonly Artifact[]): Promise<void>;
  /** Oldest first. */
  list(): LedgerEntry[];
  close(): Promise<void>;
};

type LedgerRecord = { set: LedgerEntry } | { remove: string };

const FILE = 'artifacts.jsonl';
/** Lines of history that are tolerated beyond what is alive. */
const SLACK_LINES = 256;

const keyOf = ({ site, run, vm, diskKey, platformName }: Artifact): string =>
  [site, run, vm.vmId, diskKey ?? '', platformName].join('/');

/** `folder` is made if need be. STORAGE_ERROR: the file can not be read or written. */
export async function createArtifactLedger(folder: string, log: Log): Promise<ArtifactLedger> {
  await mkdir(folder, { recursive: true });
  const ledger = new FileLedger(folder, log);
  await ledger.load();
  return ledger;
}

class FileLedger implements ArtifactLedger {
  readonly #folder: string;
  readonly #path: string;
  readonly #log: Log;
  readonly #entries = new Map<string, LedgerEntry>();
  #file: FileHandle | null = null;
  #lines = 0;
  /** Writes one after another; a failed one does not stop the next. */
  #queue: Promise<unknown> = Promise.resolve();

  constructor(folder: string, log: Log) {
    this.#folder = folder;
    this.#path = join(folder, FILE);
    this.#log = log;
  }

  async load(): Promise<void> {
    const text = await readFile(this.#path, 'utf8').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return '';
      throw this.#failed('reading', error);
    });
    const whole = text.slice(0, text.lastIndexOf('\n') + 1);
    // A line without its end was never acknowledged: the writer died in it.
    if (whole.length < text.length) await truncate(this.#path, Buffer.byteLength(whole));
    for (const [index, line] of whole.split('\n').entries()) if (line !== '') this.#apply(line, index + 1);
    await this.#open();
  }

  #apply(line: string, lineNumber: number): void {
    this.#lines++;
    try {
      this.#take(JSON.parse(line) as LedgerRecord);
    } catch (error) {
      this.#log.error('a line of the artifact ledger is damaged and was passed over', {
        file: this.#path,
        line: lineNumber,
        cause: messageOf(error),
      });
    }
  }

  async #open(): Promise<void> {
    this.#file = await open(this.#path, 'a');
    await syncFolder(this.#folder);
  }

  intend(artifacts: readonly Artifact[]): Promise<void> {
    return this.#do(async () => {
      const fresh = artifacts.filter((artifact) => !this.#entries.has(keyOf(artifact)));
      await this.#record(fresh.map((artifact) => ({ set: { artifact, state: 'intent', platformId: null } })));
    });
  }

  made(artifacts: readonly Artifact[], platformId: string | null = null): Promise<void> {
    return this.#do(() =>
      this.#record(artifacts.map((artifact) => ({ set: { artifact, state: 'made', platformId } }))),
    );
  }

  remove(artifacts: readonly Artifact[]): Promise<void> {
    return this.#do(async () => {
      const keys = artifacts.map(keyOf).filter((key) => this.#entries.has(key));
      await this.#record(keys.map((remove) => ({ remove })));
      if (this.#lines > SLACK_LINES + 4 * this.#entries.size) await this.#compact();
    });
  }

  list(): LedgerEntry[] {
    return [...this.#entries.values()];
  }

  async close(): Promise<void> {
    await this.#queue;
    await this.#file?.close();
    this.#file = null;
  }

  async #record(records: readonly LedgerRecord[]): Promise<void> {
    if (records.length === 0) return;
    await this.#append(records.map((record) => `${JSON.stringify(record)}\n`).join(''));
    this.#lines += records.length;
    for (const record of records) this.#take(record);
  }

  #take(record: LedgerRecord): void {
    if ('remove' in record) this.#entries.delete(record.remove);
    else this.#entries.set(keyOf(record.set.artifact), record.set);
  }

  async #append(lines: string): Promise<void> {
    if (!this.#file) throw new TidemarkError('STORAGE_ERROR', `the artifact ledger ${this.#path} is closed`);
    const { size } = await this.#file.stat();
    try {
      await this.#file.appendFile(lines);
      await this.#file.sync();
    } catch (error) {
      // Half a line would swallow the next one.
      await this.#file.truncate(size).catch(() => undefined);
      throw this.#failed('writing', error);
    }
  }

  async #compact(): Promise<void> {
    const fresh = await open(`${this.#path}.new`, 'w');
    try {
      for (const set of this.#entries.values()) await fresh.appendFile(`${JSON.stringify({ set })}\n`);
      await fresh.sync();
    } finally {
      await fresh.close();
    }
    await rename(`${this.#path}.new`, this.#path);
    await this.#file?.close();
    await this.#open();
    this.#lines = this.#entries.size;
  }

  #do(work: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(work);
    this.#queue = done.catch(() => undefined);
    return done;
  }

  #failed(doing: string, error: unknown): TidemarkError {
    return new TidemarkError(
      'STORAGE_ERROR',
      `${doing} the artifact ledger ${this.#path}: ${messageOf(error)}`,
      {},
      error,
    );
  }
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

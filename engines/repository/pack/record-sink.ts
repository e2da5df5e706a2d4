/** Where a lane's thread puts records: its own open pack, rolled at the target size. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { releaseMemory } from '../../../schema/domain/memory.ts';
import type { RecordPlace, RecordSink, Seams } from '../../../schema/domain/seams.ts';
import { isEncrypted, parseRepositoryFile } from '../../../schema/repository/documents.ts';
import { DATA_PACK_TARGET_BYTES, MAX_PACK_RECORDS, PAGE_PACK_TARGET_BYTES } from '../../../schema/repository/limits.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';
import type { SealedRecord } from '../../../schema/repository/sealed-record.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import { IdleTimer } from './idle-timer.ts';
import { createPackWriter, type PackWriter } from './pack-writer.ts';

type SinkOptions = {
  storage: Storage;
  vault: Vault;
  uuid: string;
  contents: PackContents;
  seams: Seams;
  /** Bytes at which a pack is closed. */
  targetBytes: number;
  /** A pack that nobody wrote to for so long is closed; absent: it stays open. */
  idleMs?: number | undefined;
};

/**
 * So long a pack waits for more: a worker runs for months, and only closed packs are checked and collected. And for who
 * reads more of it: one that was removed for good gives its room back when nobody has it open.
 */
export const IDLE_PACK_MS = 10 * 60_000;

/**
 * A sink for block records in a repository that exists. For one thread; its users may append while a sync is under way. When
 * a sync fails, whatever any user appended and did not sync yet is lost: the caller stops them all. The caller has checked that `digest` is that of the decoded payload.
 */
export function openRecordSink(options: {
  storage: Storage;
  vault: Vault;
  seams: Seams;
  targetBytes?: number;
  idleMs?: number;
}): RecordSink {
  const { storage, vault, targetBytes = DATA_PACK_TARGET_BYTES } = options;
  return new PackSink({ ...options, uuid: uuidFor(storage, vault), contents: 'blocks', targetBytes });
}

/** A sink for map pages. */
export const openPageSink = (options: Omit<SinkOptions, 'contents' | 'targetBytes'>): RecordSink =>
  new PackSink({ ...options, contents: 'pages', targetBytes: PAGE_PACK_TARGET_BYTES });

/** BUG when the vault is of the other kind: nothing may ever be written in the clear beside what is encrypted. */
function uuidFor({ staging }: Storage, vault: Vault): string {
  const path = staging.locate(layout.repositoryFile);
  const file = parseRepositoryFile(staging.readTextSync(layout.repositoryFile), path);
  if (isEncrypted(file) === vault.isEncrypted) return file.uuid;
  throw new TidemarkError('BUG', `${path}: the repository and the vault of a sink are not of one kind`);
}

class PackSink implements RecordSink {
  readonly #options: SinkOptions;
  readonly #syncs = oneAfterAnother(() => this.#syncAll());
  #current: PackWriter | null = null;
  /** Full packs, published at the next sync: append is synchronous and cannot wait for it. */
  #full: PackWriter[] = [];
  /** Records were lost of which no sync has told yet. */
  #lost: unknown = null;
  /** Records so far, and how many of them nobody waits for any more: durable, or told to be lost. */
  #appended = 0;
  #settled = 0;
  readonly #idle: IdleTimer | null;

  constructor(options: SinkOptions) {
    this.#options = options;
    const { idleMs, seams } = options;
    const onIdle = (): void => void this.#closeIdle();
    this.#idle = idleMs === undefined ? null : new IdleTimer({ clock: seams.clock, idleMs, onIdle });
  }

  append(record: Parameters<RecordSink['append']>[0]): RecordPlace {
    const { vault, contents } = this.#options;
    const { digest, ...rest } = record;
    const kind = contents === 'pages' ? 'page' : 'block';
    const sealed = vault.sealRecord({ kind, id: vault.idOf(digest), ...rest });
    const pack = (this.#current ??= this.#newPack());
    const offset = this.#appendTo(pack, sealed);
    this.#appended += 1;
    this.#idle?.touch();
    for (const part of sealed.parts) if (part !== record.payload) releaseMemory(part);
    if (pack.lengthBytes() >= this.#options.targetBytes || pack.recordCount() >= MAX_PACK_RECORDS) {
      this.#full.push(pack);
      this.#current = null;
    }
    const { rawLength, codec } = record;
    return { pack: pack.packId, offset, storedLength: sealed.storedLength, rawLength, codec };
  }

  sync(): Promise<void> {
    return this.#syncs.run();
  }

  async close(): Promise<void> {
    this.#idle?.stop();
    if (this.#current) this.#full.push(this.#current);
    this.#current = null;
    await this.#syncs.run();
  }

  async #closeIdle(): Promise<void> {
    const { log } = this.#options.seams;
    try {
      await this.close();
    } catch (error) {
      // Nobody asked: whoever appended without a sync hears of it at the next one.
      if (this.#appended > this.#settled) this.#lost ??= error;
      log.warn('an idle pack was not closed', { error: String(error) });
    }
  }

  #newPack(): PackWriter {
    const { storage, contents, uuid, seams } = this.#options;
    return createPackWriter(storage, contents, uuid, Buffer.from(seams.random.bytes(16)).toString('hex'));
  }

  #appendTo(pack: PackWriter, { header, parts }: SealedRecord): number {
    try {
      return pack.append(header, ...parts);
    } catch (error) {
      if (pack.isBroken()) {
        this.#drop(pack);
        this.#lost = error;
      }
      throw error;
    }
  }

  #drop(pack: PackWriter): void {
    pack.abandon();
    if (this.#current === pack) this.#current = null;
    this.#full = this.#full.filter((one) => one !== pack);
  }

  async #orDropped<T>(pack: PackWriter, work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      this.#drop(pack);
      throw error;
    }
  }

  async #syncAll(): Promise<void> {
    const lost = this.#lost;
    this.#lost = null;
    const appended = this.#appended;
    if (lost !== null) {
      this.#settled = appended;
      throw lost;
    }
    try {
      await this.#publishFull();
      const pack = this.#current;
      if (pack) await this.#orDropped(pack, () => pack.sync());
      this.#settled = appended;
    } catch (error) {
      // Who waits for the next sync appended before this one failed.
      if (this.#syncs.isWaiting()) this.#lost = error;
      throw error;
    }
  }

  async #publishFull(): Promise<void> {
    for (let pack = this.#full[0]; pack; pack = this.#full[0]) {
      const writer = pack;
      const published = await this.#orDropped(writer, () => writer.publish());
      this.#full = this.#full.filter((one) => one !== writer);
      if (!published) this.#options.seams.log.warn('no space to close a pack: left open', { pack: writer.packId });
    }
  }
}

/** Runs one at a time; calls made while one runs share the next. */
function oneAfterAnother(work: () => Promise<void>): { run: () => Promise<void>; isWaiting: () => boolean } {
  let tail: Promise<void> = Promise.resolve();
  let waiting: Promise<void> | null = null;
  const next = async (before: Promise<void>): Promise<void> => {
    await before.catch(() => undefined);
    waiting = null;
    await work();
  };
  return {
    run: () => (waiting ??= tail = next(tail)),
    isWaiting: () => waiting !== null,
  };
}

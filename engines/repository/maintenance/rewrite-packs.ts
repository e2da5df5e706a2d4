/** Packs that died go to the trash; of those that died in part, or are small, the living records are copied to new ones before. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { CollectionReport } from '../../../schema/domain/maintenance.ts';
import { MAX_PACK_RECORDS } from '../../../schema/repository/limits.ts';
import type { PackContents, PackRecord } from '../../../schema/repository/pack.ts';
import type { NewRecord } from '../index/record-index.ts';
import { readClosedPack, type PackListing, type PackName } from '../pack/pack-reader.ts';
import { createPackWriter, type PackWriter } from '../pack/pack-writer.ts';
import { layout } from '../storage/layout.ts';
import { damageOf } from '../restore-point/damages.ts';
import type { Merge } from './choose-merges.ts';
import { copyRecords } from './copy-records.ts';
import type { Living } from './living.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { MOST_LISTED_RECORDS, TARGET_BYTES } from './pack-sizes.ts';
import { isNeeded, replaceInIndex } from './replace-pack.ts';

/** What lies in the trash for its grace takes room as well: so much of a merge's bytes is free, or it waits. */
const ROOM_FOR_MERGE = 16;

/** As what it is counted when it is rewritten. */
type Counted = 'packsRewritten' | 'packsMerged';
type Source = { name: PackName; listing: PackListing; copies: Map<number, NewRecord> };

export type RewriteOptions = {
  living: Living;
  epoch: number;
  signal: AbortSignal;
  /** Bytes copied at most. */
  budgetBytes: number;
  report: CollectionReport;
  /** Each pack that is in the trash. */
  trashed: (name: PackName) => void;
};

export class PackRewriter {
  readonly #parts: MaintenanceParts;
  readonly #options: RewriteOptions;
  #writer: PackWriter | null = null;
  /** Copied to the writer, and still in use. */
  #waiting: (Source & { counted: Counted })[] = [];

  constructor(parts: MaintenanceParts, options: RewriteOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  /** What turns out to be needed stays. */
  async trashDead(packs: readonly PackName[]): Promise<void> {
    for (const name of packs) {
      this.#options.signal.throwIfAborted();
      const listing = await this.#read(name);
      if (listing) await this.#replace({ name, listing, copies: new Map() });
    }
  }

  /** REPOSITORY_FULL, STORAGE_ERROR; what was copied and not put in place yet is given up. */
  async rewrite(packs: readonly PackName[]): Promise<void> {
    for (const contents of ['blocks', 'pages'] as const) {
      const ofKind = packs.filter((name) => name.contents === contents);
      await this.#copyAll(contents, ofKind, 'packsRewritten');
    }
  }

  /** Each becomes one new pack, or stays: half of one would have been copied for nothing. Errors as of `rewrite`. */
  async merge(merges: readonly Merge[]): Promise<void> {
    for (const { contents, packs, liveBytes } of merges) {
      if (this.#isSpent()) return;
      if ((await this.#parts.storage.staging.freeBytes()) < ROOM_FOR_MERGE * liveBytes) continue;
      await this.#copyAll(contents, packs, 'packsMerged');
    }
  }

  async #copyAll(contents: PackContents, packs: readonly PackName[], counted: Counted): Promise<void> {
    try {
      for (const name of packs) {
        this.#options.signal.throwIfAborted();
        if (counted === 'packsMerged' || !this.#isSpent()) await this.#copy(name, counted);
      }
      await this.#finish(contents);
    } catch (error) {
      await this.#giveUp();
      throw error;
    }
  }

  #isSpent = (): boolean => this.#options.report.rewrittenBytes >= this.#options.budgetBytes;

  #read(name: PackName): Promise<PackListing | null> {
    const { storage, file, seams } = this.#parts;
    return readClosedPack(storage, file.uuid, name, seams.log);
  }

  async #copy(name: PackName, counted: Counted): Promise<void> {
    const listing = await this.#read(name);
    if (!listing) return;
    const { records, damages } = this.#parts;
    // The index may know records that a scan does not find: they would be lost with the pack.
    if (listing.scanned) return damages.reportPack(name.packId, 'its footer is damaged');
    const shelf = { records, living: this.#options.living };
    const needed = listing.records.filter((record) => isNeeded(shelf, name.packId, record));
    // Since it was chosen: it would be copied in vain.
    if (needed.some(({ header }) => shelf.living.isLocked(header.id))) return;
    if (!this.#hasRoomFor(name.contents, needed) || this.#listedRecords() >= MOST_LISTED_RECORDS)
      await this.#finish(name.contents);
    const copies = needed.length > 0 ? await this.#copyRecords(name, needed) : new Map<number, NewRecord>();
    if (copies) this.#waiting.push({ name, listing, copies, counted });
  }

  #listedRecords = (): number => this.#waiting.reduce((sum, { listing }) => sum + listing.records.length, 0);

  #hasRoomFor(contents: PackContents, needed: readonly PackRecord[]): boolean {
    const writer = this.#writer;
    if (!writer || writer.recordCount() === 0) return true;
    const bytes = needed.reduce((sum, { header }) => sum + header.storedLength, 0);
    return (
      writer.lengthBytes() + bytes <= TARGET_BYTES[contents] && writer.recordCount() + needed.length <= MAX_PACK_RECORDS
    );
  }

  /** Null when one of them is damaged, or cannot be read: then the pack stays as it is, for whoever repairs. */
  async #copyRecords(name: PackName, needed: readonly PackRecord[]): Promise<Map<number, NewRecord> | null> {
    const { storage, file, seams, damages } = this.#parts;
    const from = await storage.store.open(layout.closedPack(name.contents, name.packId));
    if (!from) return null;
    const newId = (): string => Buffer.from(seams.random.bytes(16)).toString('hex');
    const writer = (this.#writer ??= createPackWriter(storage, name.contents, file.uuid, newId()));
    const before = writer.lengthBytes();
    try {
      const copies = await copyRecords({ pack: name.packId, file: from }, needed, writer);
      if (!copies) damages.reportPack(name.packId, 'the medium does not give it');
      return copies;
    } catch (error) {
      const found = damageOf(error);
      if (!found) throw error;
      const { id, pack, offset } = (error as TidemarkError).details as { id: string; pack: string; offset: number };
      const kind = name.contents === 'pages' ? 'page' : 'record';
      damages.report({ id: Buffer.from(id, 'hex'), kind, place: { pack, offset } }, found);
      return null;
    } finally {
      this.#options.report.rewrittenBytes += writer.lengthBytes() - before;
      await from.close();
    }
  }

  /** The copies become durable; then they take the place of what they were copied from. */
  async #finish(contents: PackContents): Promise<void> {
    const writer = this.#writer;
    if (writer) {
      if (!(await writer.publish())) {
        const path = this.#parts.storage.staging.locate(layout.openPack(writer.packId));
        throw new TidemarkError('REPOSITORY_FULL', `no space to close pack ${path}`, { path, contents });
      }
      this.#writer = null;
    }
    const sources = this.#waiting;
    this.#waiting = [];
    for (const source of sources) {
      this.#options.signal.throwIfAborted();
      if (await this.#replace(source)) this.#options.report[source.counted] += 1;
    }
  }

  /** Whether it is in the trash. */
  async #replace({ name, listing, copies }: Source): Promise<boolean> {
    const { records, storage } = this.#parts;
    const { living, epoch, report, trashed } = this.#options;
    if (!replaceInIndex({ records, living }, listing, copies)) return false;
    await storage.store.moveToTrash({ epoch, name: layout.closedPack(name.contents, name.packId) });
    report.packsTrashed += 1;
    trashed(name);
    return true;
  }

  /** Nothing refers to the copies yet. */
  async #giveUp(): Promise<void> {
    const writer = this.#writer;
    this.#writer = null;
    this.#waiting = [];
    if (!writer) return;
    writer.abandon();
    await this.#parts.storage.staging.remove(layout.openPack(writer.packId)).catch(() => undefined);
  }
}

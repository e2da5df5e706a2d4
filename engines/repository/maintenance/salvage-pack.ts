/**
 * Copies what is sound in a closed pack to a new one, verbatim. For a thread of its own. Where the footer is lost, records
 * behind one that is damaged are looked for; where a record's header is, the footer has it once more.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import type { PackRecord } from '../../../schema/repository/pack.ts';
import { encodeRecordHeader } from '../../../schema/repository/record.ts';
import type { NewRecord } from '../index/record-index.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { createPackWriter, type PackWriter } from '../pack/pack-writer.ts';
import { layout } from '../storage/layout.ts';
import { outlineOf } from './pack-outline.ts';
import { readRuns } from './read-runs.ts';
import type { Fault } from '../restore-point/damages.ts';
import { faultOf, type PackShelf } from './verify-pack.ts';

/** `newPackId` null: only to see what would come of it. `only`: offsets of the records in question; null: all. */
export type SalvageJob = PackName & { newPackId: string | null; only: readonly number[] | null };

/** `saved`: where they are, durable; in a try, where they were. `lost`: ids of the others that are known to have been there. */
export type Salvaged = { saved: NewRecord[]; lost: Uint8Array[] };

/** Null: there is no such pack. REPOSITORY_FULL, STORAGE_ERROR: nothing of the copy is left. */
export async function salvagePack(shelf: PackShelf, job: SalvageJob): Promise<Salvaged | null> {
  const file = await shelf.storage.store.open(layout.closedPack(job.contents, job.packId));
  if (!file) return null;
  const copy = new SalvageCopy(shelf, job);
  try {
    const { records } = await outlineOf(file, { packId: job.packId, uuid: shelf.uuid });
    const only = job.only && new Set(job.only);
    const wanted = only ? records.filter(({ offset }) => only.has(offset)) : records;
    for await (const { record, stored } of readRuns(file, wanted)) copy.take(record, stored);
    await copy.finish();
    return { saved: copy.saved, lost: copy.lost };
  } catch (error) {
    await copy.giveUp();
    throw error;
  } finally {
    await file.close();
  }
}

class SalvageCopy {
  readonly saved: NewRecord[] = [];
  readonly lost: Uint8Array[] = [];
  readonly #shelf: PackShelf;
  readonly #job: SalvageJob;
  #writer: PackWriter | null = null;

  constructor(shelf: PackShelf, job: SalvageJob) {
    this.#shelf = shelf;
    this.#job = job;
  }

  take(record: PackRecord, stored: Buffer | null): void {
    const { header, offset } = record;
    const { kind, id, codec, rawLength, storedLength, restorePointId } = header;
    if (kind === 'fill') return;
    const sound = stored && this.#soundOf(record, stored);
    if (!sound) {
      this.lost.push(Buffer.from(id));
      return;
    }
    const place = { storedLength, rawLength, codec, ...this.#append(sound, offset) };
    this.saved.push({ id: Buffer.from(id), kind, place, writer: restorePointId });
  }

  /** The record as it was written, or null. */
  #soundOf(record: PackRecord, stored: Buffer): Buffer | null {
    const { packId } = this.#job;
    const fault = (bytes: Buffer): Fault | null => faultOf(this.#shelf, { packId, depth: 'full' }, record, bytes);
    if (fault(stored) === null) return stored;
    const mended = Buffer.concat([encodeRecordHeader(record.header), stored.subarray(RECORD_HEADER_BYTES)]);
    return fault(mended) === null ? mended : null;
  }

  #append(record: Buffer, offset: number): { pack: string; offset: number } {
    const { newPackId, packId, contents } = this.#job;
    if (newPackId === null) return { pack: packId, offset };
    const { storage, uuid } = this.#shelf;
    const writer = (this.#writer ??= createPackWriter(storage, contents, uuid, newPackId));
    const at = writer.append(record.subarray(0, RECORD_HEADER_BYTES), record.subarray(RECORD_HEADER_BYTES));
    return { pack: newPackId, offset: at };
  }

  async finish(): Promise<void> {
    if (!this.#writer || (await this.#writer.publish())) return;
    const path = this.#shelf.storage.staging.locate(layout.openPack(this.#writer.packId));
    throw new TidemarkError('REPOSITORY_FULL', `no space to close pack ${path}`, { path });
  }

  async giveUp(): Promise<void> {
    if (!this.#writer) return;
    this.#writer.abandon();
    await this.#shelf.storage.staging.remove(layout.openPack(this.#writer.packId)).catch(() => undefined);
  }
}

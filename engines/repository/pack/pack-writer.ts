/** One pack from its first record to its publication. Appends are synchronous, in pieces of at most 1 MiB; syncs go to the pool. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import {
  encodeFooter,
  encodePackHeader,
  type FooterEntry,
  type PackContents,
} from '../../../schema/repository/pack.ts';
import { layout } from '../storage/layout.ts';
import type { StagingFile } from '../storage/staging.ts';
import type { Storage } from '../storage/storage.ts';

export type PackWriter = {
  readonly packId: string;
  /** Length so far: where the next record's header goes. */
  lengthBytes(): number;
  recordCount(): number;
  /** Offset of the record's header. Nothing is appended when it throws. */
  append(header: Uint8Array, ...payload: Uint8Array[]): number;
  /** Records that lie side by side, as one; the offset of the first. `places`: where each one's header begins in `records`. */
  appendAll(records: Uint8Array, places: readonly number[]): number;
  /** Resolves when everything appended is durable, the file's name included. */
  sync(): Promise<void>;
  /** Whether a failed write or sync has made it unfit for more records. */
  isBroken(): boolean;
  /**
   * Everything appended becomes durable and the file is let go of: with footer, on its shelf. False when there was no
   * space for that: then it stays in open/packs, readable, and is finished at a start.
   */
  publish(): Promise<boolean>;
  /** Lets go of the file and leaves it in open/packs; records synced earlier stay readable there. */
  abandon(): void;
};

/** Creates the file in open/packs. `uuid` of the repository, `packId`: 32 hex digits. */
export function createPackWriter(storage: Storage, contents: PackContents, uuid: string, packId: string): PackWriter {
  const entries: FooterEntry[] = [];
  const file = createPackFile(storage, encodePackHeader({ contents, uuid, packId }), packId);
  return {
    packId,
    lengthBytes: () => file.lengthBytes(),
    recordCount: () => entries.length,
    isBroken: () => file.isBroken(),
    append: (header, ...payload) => {
      const offset = file.appendSync(header, ...payload);
      // A copy: it may lie in memory that holds many records, and is given back.
      entries.push({ header: Buffer.from(header), offset });
      return offset;
    },
    appendAll: (records, places) => {
      const offset = file.appendSync(records);
      for (const place of places) {
        const header = Buffer.from(records.subarray(place, place + RECORD_HEADER_BYTES));
        entries.push({ header, offset: offset + place });
      }
      return offset;
    },
    sync: () => file.sync(),
    publish: async () => {
      const whole = orNoRoom(file, () => file.appendSync(encodeFooter(entries, file.lengthBytes())));
      await file.finish();
      return whole && (await publishIfRoom(storage, contents, packId));
    },
    abandon: () => file.close(),
  };
}

function createPackFile({ staging }: Storage, header: Buffer, packId: string): StagingFile {
  const file = staging.createSync(layout.openPack(packId));
  try {
    file.appendSync(header);
    return file;
  } catch (error) {
    file.discardSync();
    throw error;
  }
}

/** Whether there was space; the file then ends with its records as before. */
function orNoRoom(file: StagingFile, append: () => void): boolean {
  try {
    append();
    return true;
  } catch (error) {
    if (errorCodeOf(error) !== 'REPOSITORY_FULL' || file.isBroken()) throw error;
    return false;
  }
}

async function publishIfRoom(storage: Storage, contents: PackContents, packId: string): Promise<boolean> {
  try {
    await storage.store.put(layout.closedPack(contents, packId), layout.openPack(packId));
    return true;
  } catch (error) {
    if (errorCodeOf(error) === 'REPOSITORY_FULL') return false;
    throw error;
  }
}

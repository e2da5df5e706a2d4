/**
 * One pack from its first record to its publication. Writes are synchronous, of at most 1 MiB; syncs go to the pool.
 * After a failed sync the file is abandoned: never written or synced again (what an fsync failure lost is unknown).
 */
import { closeSync, fdatasync, fsync, mkdirSync, openSync, renameSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { PACK_HEADER_BYTES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import {
  encodeFooter,
  encodePackHeader,
  type FooterEntry,
  type PackContents,
} from '../../../schema/repository/pack.ts';
import { cutBackSync, ensureFolder, storageError, syncFolder, writeFullySync } from '../storage/files.ts';
import type { Layout } from '../storage/layout.ts';

const syncData = promisify(fdatasync);
const syncAll = promisify(fsync);

export type PackWriter = {
  readonly packId: string;
  /** Length so far: where the next record's header goes. */
  lengthBytes(): number;
  recordCount(): number;
  /** Offset of the record's header. Nothing is appended when it throws. */
  append(header: Uint8Array, payload: Uint8Array): number;
  /** Resolves when everything appended is durable, the file's name included. */
  sync(): Promise<void>;
  /** Footer, fsync, rename to its shelf, both folders synced. */
  publish(): Promise<void>;
  /** Lets go of the file and leaves it in open/packs; records synced earlier stay readable there. */
  abandon(): void;
};

type State = { fd: number; lengthBytes: number; nameDurable: boolean; broken: unknown };

/** Creates the file in open/packs. `uuid` of the repository, `packId`: 32 hex digits. */
export function createPackWriter(layout: Layout, contents: PackContents, uuid: string, packId: string): PackWriter {
  const path = layout.openPack(packId);
  const entries: FooterEntry[] = [];
  const state = openPackFile(path, encodePackHeader({ contents, uuid, packId }));
  const usable = (): void => {
    if (state.broken !== null)
      throw new TidemarkError(
        'STORAGE_ERROR',
        `pack ${packId} was abandoned after a failed write`,
        { path },
        state.broken,
      );
  };
  const broken = (error: unknown): unknown => {
    state.broken = error;
    return storageError(error, path);
  };
  return {
    packId,
    lengthBytes: () => state.lengthBytes,
    recordCount: () => entries.length,
    append: (header, payload) => {
      usable();
      const offset = state.lengthBytes;
      try {
        writeFullySync(state.fd, header, offset);
        writeFullySync(state.fd, payload, offset + RECORD_HEADER_BYTES);
      } catch (error) {
        if (!cutBackSync(state.fd, offset)) state.broken = error;
        throw storageError(error, path);
      }
      state.lengthBytes += RECORD_HEADER_BYTES + payload.byteLength;
      entries.push({ header, offset });
      return offset;
    },
    sync: async () => {
      usable();
      await syncData(state.fd).catch((error: unknown) => {
        throw broken(error);
      });
      if (!state.nameDurable) await syncFolder(dirname(path));
      state.nameDurable = true;
    },
    publish: async () => {
      usable();
      try {
        writeFullySync(state.fd, encodeFooter(entries, state.lengthBytes), state.lengthBytes);
        await syncAll(state.fd);
      } catch (error) {
        throw broken(error);
      }
      closeSync(state.fd);
      state.broken = 'it was published';
      await publishPack(layout, contents, packId);
    },
    abandon: () => {
      if (state.broken !== 'it was published') closeSync(state.fd);
      state.broken = 'it was published';
    },
  };
}

function openPackFile(path: string, header: Buffer): State {
  try {
    mkdirSync(dirname(path), { recursive: true });
    const fd = openSync(path, 'wx+');
    writeFullySync(fd, header, 0);
    return { fd, lengthBytes: PACK_HEADER_BYTES, nameDurable: false, broken: null };
  } catch (error) {
    throw storageError(error, path);
  }
}

/** Moves a finished, synced pack from open/packs to its shelf. */
export async function publishPack(layout: Layout, contents: PackContents, packId: string): Promise<void> {
  const target = layout.closedPack(contents, packId);
  await ensureFolder(dirname(target));
  try {
    renameSync(layout.openPack(packId), target);
  } catch (error) {
    throw storageError(error, target);
  }
  await syncFolder(dirname(target));
  await syncFolder(layout.openPacks);
}

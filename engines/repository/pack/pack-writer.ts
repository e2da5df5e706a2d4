/**
 * One pack from its first record to its publication. Writes are synchronous, of at most 1 MiB; syncs go to the pool.
 * After a failed sync the file is abandoned: never written or synced again (what an fsync failure lost is unknown).
 */
import { closeSync, fdatasync, fsync, mkdirSync, openSync, renameSync, rmSync } from 'node:fs';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
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
  /** Whether a failed write or sync has made it unfit for more records. */
  isBroken(): boolean;
  /**
   * Everything appended becomes durable and the file is let go of: with footer, renamed to its shelf, both folders
   * synced. False when there was no space for that: then it stays in open/packs, readable, and is finished at a start.
   */
  publish(): Promise<boolean>;
  /** Lets go of the file and leaves it in open/packs; records synced earlier stay readable there. */
  abandon(): void;
};

type State = {
  path: string;
  fd: number;
  lengthBytes: number;
  /** Length at the last sync that succeeded. */
  syncedBytes: number;
  nameDurable: boolean;
  broken: unknown;
  closed: boolean;
};

/** Creates the file in open/packs. `uuid` of the repository, `packId`: 32 hex digits. */
export function createPackWriter(layout: Layout, contents: PackContents, uuid: string, packId: string): PackWriter {
  const entries: FooterEntry[] = [];
  const state = openPackFile(layout.openPack(packId), encodePackHeader({ contents, uuid, packId }));
  return {
    packId,
    lengthBytes: () => state.lengthBytes,
    recordCount: () => entries.length,
    isBroken: () => state.broken !== null,
    append: (header, payload) => {
      checkUsable(state);
      const offset = state.lengthBytes;
      try {
        writeFullySync(state.fd, header, offset);
        writeFullySync(state.fd, payload, offset + RECORD_HEADER_BYTES);
      } catch (error) {
        if (!cutBackSync(state.fd, offset)) state.broken = error;
        throw storageError(error, state.path);
      }
      state.lengthBytes += RECORD_HEADER_BYTES + payload.byteLength;
      entries.push({ header, offset });
      return offset;
    },
    sync: async () => {
      checkUsable(state);
      const lengthBytes = state.lengthBytes;
      await syncOrBreak(state, syncData);
      if (!state.nameDurable) await syncFolder(dirname(state.path));
      state.nameDurable = true;
      state.syncedBytes = lengthBytes;
    },
    publish: async () => {
      checkUsable(state);
      const whole = writeFooter(state, entries);
      await syncOrBreak(state, syncAll);
      if (!state.nameDurable) await syncFolder(dirname(state.path));
      letGo(state);
      return whole && (await publishIfRoom(layout, contents, packId));
    },
    abandon: () => {
      cutUnsynced(state);
      letGo(state);
    },
  };
}

function checkUsable({ broken, closed, path }: State): void {
  if (broken !== null || closed)
    throw new TidemarkError('STORAGE_ERROR', `pack ${path} was abandoned after a failed write`, { path }, broken);
}

async function syncOrBreak(state: State, sync: (fd: number) => Promise<void>): Promise<void> {
  try {
    await sync(state.fd);
  } catch (error) {
    state.broken = error;
    throw storageError(error, state.path);
  }
}

/** False when there is no space for it; the file then ends with its records as before. */
function writeFooter(state: State, entries: readonly FooterEntry[]): boolean {
  try {
    writeFullySync(state.fd, encodeFooter(entries, state.lengthBytes), state.lengthBytes);
    return true;
  } catch (error) {
    const failure = storageError(error, state.path);
    if (errorCodeOf(failure) === 'REPOSITORY_FULL' && cutBackSync(state.fd, state.lengthBytes)) return false;
    state.broken = error;
    throw failure;
  }
}

/**
 * What a failed sync lost may still be read from memory, and would pass for sound at the next start: it goes. Whatever
 * was acknowledged lies before.
 */
function cutUnsynced({ broken, closed, fd, syncedBytes }: State): void {
  if (broken !== null && !closed) cutBackSync(fd, syncedBytes);
}

function letGo(state: State): void {
  if (!state.closed) closeSync(state.fd);
  state.closed = true;
}

function openPackFile(path: string, header: Buffer): State {
  try {
    mkdirSync(dirname(path), { recursive: true });
    const fd = openSync(path, 'wx+');
    const state = {
      path,
      fd,
      lengthBytes: PACK_HEADER_BYTES,
      syncedBytes: PACK_HEADER_BYTES,
      nameDurable: false,
      broken: null,
      closed: false,
    };
    try {
      writeFullySync(fd, header, 0);
    } catch (error) {
      letGo(state);
      rmSync(path, { force: true });
      throw error;
    }
    return state;
  } catch (error) {
    throw storageError(error, path);
  }
}

async function publishIfRoom(layout: Layout, contents: PackContents, packId: string): Promise<boolean> {
  try {
    await publishPack(layout, contents, packId);
    return true;
  } catch (error) {
    if (errorCodeOf(error) === 'REPOSITORY_FULL') return false;
    throw error;
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

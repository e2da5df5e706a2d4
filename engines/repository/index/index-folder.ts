/** The folder where the index is kept: a local cache. All its file access is here; errors come as Node throws them. */
import { close, fdatasync, fstat, fsync, open, read, readSync, write } from 'node:fs';
import { mkdir, readdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errnoOf } from '../storage/files.ts';

const files = {
  open: promisify(open),
  stat: promisify(fstat),
  read: promisify(read),
  write: promisify(write),
  sync: promisify(fsync),
  syncData: promisify(fdatasync),
  close: promisify(close),
};
/** A long file becomes durable piece by piece: one long sync at its end would hold up everybody else's. */
const SYNC_EVERY_BYTES = 32 * 1024 * 1024;

export type IndexFile = {
  readonly sizeBytes: number;
  /** Fills `into`; throws when the file is too short. */
  readSync(into: Buffer, position: number): void;
  read(into: Buffer, position: number): Promise<void>;
  /** Reads under way fail. */
  close(): Promise<void>;
};

export type NewIndexFile = {
  append(bytes: Buffer): Promise<void>;
  /** The content is durable when it resolves (the name is with the next `replace`). */
  finish(): Promise<void>;
  discard(): Promise<void>;
};

/** Names are of files directly in the folder. */
export type IndexFolder = {
  /** None when there is no folder. */
  list(): Promise<string[]>;
  /** Null when there is no such file. */
  readWhole(name: string): Promise<Buffer | null>;
  open(name: string): Promise<IndexFile>;
  /** Makes the folder when there is none. */
  create(name: string): Promise<NewIndexFile>;
  /** Replaces or makes a file whole; it and the names of all files finished before are durable when it resolves. */
  replace(name: string, bytes: Buffer): Promise<void>;
  /** Nothing when there is no such file. */
  remove(name: string): Promise<void>;
};

export function openIndexFolder(folder: string): IndexFolder {
  const at = (name: string): string => join(folder, name);
  const create = async (name: string): Promise<NewIndexFile> => {
    await mkdir(folder, { recursive: true });
    return newFile(await files.open(at(name), 'w'), () => rm(at(name), { force: true }));
  };
  return {
    list: () => orElse(readdir(folder), []),
    readWhole: (name) => orElse(readFile(at(name)), null),
    open: async (name) => {
      const fd = await files.open(at(name), 'r');
      return openFile(fd, (await files.stat(fd)).size);
    },
    create,
    replace: async (name, bytes) => {
      const temporary = `.new-${name}`;
      const file = await create(temporary);
      await file.append(bytes).catch(async (error: unknown) => {
        await file.discard();
        throw error;
      });
      await file.finish();
      await rename(at(temporary), at(name));
      const fd = await files.open(folder, 'r');
      await files.sync(fd).finally(() => files.close(fd));
    },
    remove: (name) => rm(at(name), { force: true }),
  };
}

async function orElse<T>(work: Promise<T>, whenMissing: T): Promise<T> {
  try {
    return await work;
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return whenMissing;
    throw error;
  }
}

const cutShort = (position: number): Error => new Error(`the file ends before byte ${position}`);

const openFile = (fd: number, sizeBytes: number): IndexFile => ({
  sizeBytes,
  readSync: (into, position) => {
    for (let at = 0; at < into.byteLength;) {
      const count = readSync(fd, into, at, into.byteLength - at, position + at);
      if (count === 0) throw cutShort(position + into.byteLength);
      at += count;
    }
  },
  read: async (into, position) => {
    for (let at = 0; at < into.byteLength;) {
      const { bytesRead } = await files.read(fd, into, at, into.byteLength - at, position + at);
      if (bytesRead === 0) throw cutShort(position + into.byteLength);
      at += bytesRead;
    }
  },
  close: () => files.close(fd),
});

function newFile(fd: number, remove: () => Promise<void>): NewIndexFile {
  let lengthBytes = 0;
  let syncedBytes = 0;
  return {
    append: async (bytes) => {
      for (let at = 0; at < bytes.byteLength;) {
        const { bytesWritten } = await files.write(fd, bytes, at, bytes.byteLength - at, lengthBytes);
        at += bytesWritten;
        lengthBytes += bytesWritten;
      }
      if (lengthBytes - syncedBytes < SYNC_EVERY_BYTES) return;
      await files.syncData(fd);
      syncedBytes = lengthBytes;
    },
    finish: async () => {
      await files.sync(fd).finally(() => files.close(fd));
    },
    discard: async () => {
      await files.close(fd);
      await remove();
    },
  };
}

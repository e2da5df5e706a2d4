/**
 * The calls of `node:fs` that the storage of a repository makes, and no others: whatever answers them as POSIX says can
 * stand below it. Errors carry `code` as Node's do. What was written or renamed is durable only after the `fsync` of the
 * file or the folder. Calls that end in `Sync` are for lane threads, which may block; the others go to the pool.
 */
import fs from 'node:fs';
import { promisify } from 'node:util';
import { setImmutable } from './immutable-files.ts';
import { takeFileLock } from './lock.ts';

/** 'r' to read, 'r+' to change what is there, 'wx+' for a new file (EEXIST when there is one). */
export type OpenFlags = 'r' | 'r+' | 'wx+';

/** Paths are absolute; `fd` is what `open` gave; lengths and positions in bytes. */
export type FileSystem = {
  open(path: string, flags: OpenFlags): Promise<number>;
  openSync(path: string, flags: OpenFlags): number;
  /** Bytes read: may be fewer than asked for, 0 only at the end. */
  read(fd: number, into: Uint8Array, at: number, lengthBytes: number, position: number): Promise<number>;
  /** Bytes written: may be fewer than asked for. */
  write(fd: number, bytes: Uint8Array, at: number, lengthBytes: number, position: number): Promise<number>;
  writeSync(fd: number, bytes: Uint8Array, at: number, lengthBytes: number, position: number): number;
  ftruncate(fd: number, lengthBytes: number): Promise<void>;
  ftruncateSync(fd: number, lengthBytes: number): void;
  /** Also of a folder, opened with 'r': its names. */
  fsync(fd: number): Promise<void>;
  /** Content and length; not the times. */
  fdatasync(fd: number): Promise<void>;
  fileBytes(fd: number): Promise<number>;
  close(fd: number): Promise<void>;
  closeSync(fd: number): void;
  readFileSync(path: string): Uint8Array;
  mkdir(path: string, mode?: number): Promise<void>;
  mkdirSync(path: string): void;
  /** Names in a folder, in no order. */
  readdir(path: string): Promise<{ name: string; isFolder: boolean }[]>;
  /** Replaces a file of that name in one step. */
  rename(from: string, to: string): Promise<void>;
  /** EEXIST when there is such a name. */
  link(from: string, to: string): Promise<void>;
  unlink(path: string): Promise<void>;
  unlinkSync(path: string): void;
  rmdir(path: string): Promise<void>;
  freeBytes(path: string): Promise<number>;
  /**
   * Sets or takes away the attribute that lets nobody change, link, move or remove these files. False where the file
   * system has none or we may not; does not throw.
   */
  setImmutable(paths: readonly string[], on: boolean): Promise<boolean>;
  /**
   * Takes `path` for this process until the result is called or the process ends. `ownerPath` says whose it is.
   * REPOSITORY_IN_USE when it is another's.
   */
  lock(path: string, ownerPath: string): () => void;
};

const open = promisify(fs.open);
const readdir = promisify(fs.readdir);
const mkdir = promisify<string, number | undefined>(fs.mkdir);
const read = promisify(fs.read);
const write = promisify(fs.write);
const fstat = promisify(fs.fstat);
const statfs = promisify(fs.statfs);

export const nodeFileSystem: FileSystem = {
  open: (path, flags) => open(path, flags),
  openSync: (path, flags) => fs.openSync(path, flags),
  read: async (fd, into, at, lengthBytes, position) => (await read(fd, into, at, lengthBytes, position)).bytesRead,
  write: async (fd, bytes, at, lengthBytes, position) =>
    (await write(fd, bytes, at, lengthBytes, position)).bytesWritten,
  writeSync: (fd, bytes, at, lengthBytes, position) => fs.writeSync(fd, bytes, at, lengthBytes, position),
  ftruncate: promisify(fs.ftruncate),
  ftruncateSync: (fd, lengthBytes) => fs.ftruncateSync(fd, lengthBytes),
  fsync: promisify(fs.fsync),
  fdatasync: promisify(fs.fdatasync),
  fileBytes: async (fd) => (await fstat(fd)).size,
  close: promisify(fs.close),
  closeSync: (fd) => fs.closeSync(fd),
  readFileSync: (path) => fs.readFileSync(path),
  mkdir: (path, mode) => mkdir(path, mode),
  mkdirSync: (path) => fs.mkdirSync(path),
  readdir: async (path) =>
    (await readdir(path, { withFileTypes: true })).map((entry) => ({
      name: entry.name,
      isFolder: entry.isDirectory(),
    })),
  rename: promisify(fs.rename),
  link: promisify(fs.link),
  unlink: promisify(fs.unlink),
  unlinkSync: (path) => fs.unlinkSync(path),
  rmdir: promisify(fs.rmdir),
  freeBytes: async (path) => {
    const { bavail, bsize } = await statfs(path);
    return bavail * bsize;
  },
  setImmutable,
  lock: takeFileLock,
};

/** Durable file operations. Errors: REPOSITORY_FULL when there is no room, STORAGE_ERROR else; both name the file. */
import { closeSync, fsyncSync, ftruncateSync, openSync, writeSync, type Dirent } from 'node:fs';
import { link, mkdir, open, readdir, readFile, rename, rm, stat, statfs, type FileHandle } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';

const WRITE_BYTES = 1024 * 1024;

export const errnoOf = (error: unknown): string | undefined => (error as { code?: string } | null)?.code;

/** What to throw for a failed operation on `path`. */
export function storageError(error: unknown, path: string): unknown {
  if (error instanceof TidemarkError) return error;
  const errno = errnoOf(error);
  const full = errno === 'ENOSPC' || errno === 'EDQUOT';
  if (full) return new TidemarkError('REPOSITORY_FULL', `no space left in ${dirname(path)}`, { path, errno }, error);
  return new TidemarkError(
    'STORAGE_ERROR',
    `file operation failed on ${path}: ${String(error)}`,
    { path, errno },
    error,
  );
}

/** Whether the medium did not give the bytes: damage, not a passing failure. Of an error of `storageError`. */
export const isReadFailure = (error: unknown): boolean =>
  error instanceof TidemarkError && error.details['errno'] === 'EIO';

async function guarded<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storageError(error, path);
  }
}

/** Writes all of `bytes` at `offset`, at most 1 MiB per call: a lane's thread may block that long. */
export function writeFullySync(fd: number, bytes: Uint8Array, offset: number): void {
  for (let at = 0; at < bytes.byteLength;) {
    at += writeSync(fd, bytes, at, Math.min(WRITE_BYTES, bytes.byteLength - at), offset + at);
  }
}

/** Cuts a file back after a failed write; whether that worked. */
export function cutBackSync(fd: number, lengthBytes: number): boolean {
  try {
    ftruncateSync(fd, lengthBytes);
    return true;
  } catch {
    return false;
  }
}

/** Makes names in a folder durable. */
export const syncFolder = (folder: string): Promise<void> =>
  guarded(folder, async () => {
    const handle = await open(folder, 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  });

export function syncFolderSync(folder: string): void {
  const fd = openSync(folder, 'r');
  try {
    fsyncSync(fd);
  } finally {
    closeSync(fd);
  }
}

/** Creates a folder in an existing one, its name durable. */
export const ensureFolder = (folder: string): Promise<void> =>
  guarded(folder, async () => {
    const made = await mkdir(folder, { recursive: true });
    if (made !== undefined) await syncFolder(dirname(made));
    if (made !== undefined && made !== folder) await syncFolder(dirname(folder));
  });

async function writeTemporary(path: string, text: string): Promise<string> {
  const temporary = join(dirname(path), `.new-${basename(path)}`);
  await rm(temporary, { force: true });
  const handle = await open(temporary, 'wx');
  try {
    await handle.writeFile(text);
    await handle.sync();
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  } finally {
    await handle.close();
  }
  return temporary;
}

/** Replaces or makes a file whole; durable when it returns. */
export const replaceFile = (path: string, text: string): Promise<void> =>
  guarded(path, async () => {
    await rename(await writeTemporary(path, text), path);
    await syncFolder(dirname(path));
  });

/** Makes a file under a name that must not exist; durable when it returns. False when it exists (nothing changed). */
export const putIfAbsent = (path: string, text: string): Promise<boolean> =>
  guarded(path, async () => {
    const temporary = await writeTemporary(path, text);
    try {
      await link(temporary, path);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    } finally {
      await rm(temporary, { force: true });
    }
    await syncFolder(dirname(path));
    return true;
  });

/** Text of a file of at most `maxBytes`, or null when there is none. */
export const readTextFile = (path: string, maxBytes: number): Promise<string | null> =>
  guarded(path, async () => {
    try {
      if ((await stat(path)).size > maxBytes)
        throw new TidemarkError('REPOSITORY_CORRUPT', `${path} is longer than ${maxBytes} bytes`, { path });
      return await readFile(path, 'utf8');
    } catch (error) {
      if (errnoOf(error) === 'ENOENT') return null;
      throw error;
    }
  });

/** Entries of a folder except temporary names; none when it does not exist. Sorted by name. */
export async function listFolder(folder: string): Promise<Dirent[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true });
    return entries.filter((entry) => !entry.name.startsWith('.')).sort((a, b) => (a.name < b.name ? -1 : 1));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw storageError(error, folder);
  }
}

/** Opens a file, lets `work` use it, closes it. Errors as they come; callers name the file with `storageError`. */
export async function withOpenFile<T>(
  path: string,
  flags: string,
  work: (handle: FileHandle) => Promise<T>,
): Promise<T> {
  const handle = await open(path, flags);
  try {
    return await work(handle);
  } finally {
    await handle.close();
  }
}

export const freeBytesOf = (folder: string): Promise<number> =>
  guarded(folder, async () => {
    const { bavail, bsize } = await statfs(folder);
    return bavail * bsize;
  });

export const removeTree = (path: string): Promise<void> =>
  guarded(path, () => rm(path, { recursive: true, force: true }));

/** Errors of file operations, and the two that the index needs for its cache folder, which is no part of the repository. */
import { mkdir, open, type FileHandle } from 'node:fs/promises';
import { dirname } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';

export const errnoOf = (error: unknown): string | undefined => (error as { code?: string } | null)?.code;

/** What to throw for a failed operation on `path`: REPOSITORY_FULL when there is no room, STORAGE_ERROR else. */
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

/** As `work`, its errors as those of `storageError`. */
export async function guarded<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw storageError(error, path);
  }
}

const PASSING = 'EAGAIN EBUSY ECONNREFUSED ECONNRESET EINTR EIO EMFILE ENFILE EPIPE ESTALE ETIMEDOUT'.split(' ');

/** Whether a call that failed so may succeed when it is said again at once. Of an error of `storageError`. */
export const isPassing = (error: unknown): boolean =>
  error instanceof TidemarkError && error.code === 'STORAGE_ERROR' && PASSING.includes(String(error.details['errno']));

/** Whether the medium did not give the bytes: damage, not a passing failure. Of an error of `storageError`. */
export const isReadFailure = (error: unknown): boolean =>
  error instanceof TidemarkError && error.details['errno'] === 'EIO';

/** Null for what the medium does not give. */
export async function orUnread<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (isReadFailure(error)) return null;
    throw error;
  }
}

export const ensureFolder = (folder: string): Promise<void> =>
  guarded(folder, async () => void (await mkdir(folder, { recursive: true })));

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

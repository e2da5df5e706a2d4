/** File operations of restore targets: durable, never over something that is there, with errors that name the file. */
import { constants, type Stats } from 'node:fs';
import { link, lstat, open, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

export const asStorageError = (file: string, error: unknown): TidemarkError =>
  error instanceof TidemarkError
    ? error
    : new TidemarkError('STORAGE_ERROR', `restore target ${file}: ${messageOf(error)}`, { file }, error);

/** What the system refuses becomes STORAGE_ERROR. */
export async function guarded<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw asStorageError(file, error);
  }
}

/** UNREACHABLE: the storage of `file` has not answered for so long. What was asked of it may still be done. */
export async function answered<T>(file: string, silenceMs: number, work: () => Promise<T>): Promise<T> {
  const working = work();
  working.catch(() => undefined);
  const message = `restore target ${file}: its storage has not answered for ${silenceMs / 1000} s`;
  let timer: NodeJS.Timeout;
  const silence = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new TidemarkError('UNREACHABLE', message, { file })), silenceMs);
  });
  return await Promise.race([working, silence]).finally(() => clearTimeout(timer));
}

export const alreadyThere = (file: string): TidemarkError =>
  new TidemarkError('TARGET_EXISTS', `${file} is there already`, { file });

/** What a restore had made went away: with its file system, or by somebody else's hand. `what`: for people; `file`: the one missed. */
export const goneError = (what: string, file: string): TidemarkError =>
  new TidemarkError(
    'STORAGE_ERROR',
    `${what} is gone: see whether its file system is mounted and who removes files there, then restore anew`,
    { file },
  );

const codeOf = (error: unknown): string | undefined => (error as NodeJS.ErrnoException).code;

/** Of the name itself: a link to nowhere is something, too. Null: nothing of that name. */
export async function entryOf(file: string): Promise<Stats | null> {
  try {
    return await lstat(file);
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw asStorageError(file, error);
  }
}

/** For reading and writing; not through a link. `create`: only when nothing of that name is there. */
export const openTarget = (file: string, create = false) =>
  open(file, constants.O_RDWR | constants.O_NOFOLLOW | (create ? constants.O_CREAT | constants.O_EXCL : 0), 0o600);

/**
 * TARGET_EXISTS: something else has the name. A move that was cut off half-way is ended; one that hung may go on meanwhile,
 * and have linked it first.
 */
export async function moveExclusively(from: string, to: string): Promise<void> {
  const [moving, there] = [await entryOf(from), await entryOf(to)];
  if (!moving && there) return;
  const cutOff = isSame(moving, there);
  if (there && !cutOff) throw alreadyThere(to);
  await guarded(from, async () => {
    if (!cutOff) await syncPath(from);
    if (cutOff || (await linked(from, to, moving))) await rm(from, { force: true });
    else await rename(from, to);
  });
}

const isSame = (one: Stats | null, other: Stats | null): boolean =>
  one !== null && other !== null && one.ino === other.ino && one.dev === other.dev;

/** False where the file system has no links: there a rename has to do, which would overwrite what came just now. */
async function linked(from: string, to: string, moving: Stats | null): Promise<boolean> {
  try {
    await link(from, to);
    return true;
  } catch (error) {
    if (codeOf(error) === 'EEXIST' && isSame(moving, await entryOf(to))) return true;
    if (codeOf(error) === 'EEXIST') throw alreadyThere(to);
    if (['EPERM', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'EMLINK'].includes(codeOf(error) ?? '')) return false;
    throw error;
  }
}

export async function writeDurably(file: string, text: string): Promise<void> {
  const handle = await open(`${file}.new`, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${file}.new`, file);
  await syncPath(path.dirname(file));
}

export async function syncPath(file: string): Promise<void> {
  const handle = await open(file, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

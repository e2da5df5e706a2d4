/**
 * One owner per folder: an exclusive SQLite transaction on a lock file, which the system ends with the process.
 * The owner's process id lies in a file of its own: reading the lock file would drop the process's POSIX lock.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { storageError } from './files.ts';

const SQLITE_BUSY = 5;
const SQLITE_FULL = 13;

/** REPOSITORY_FULL: there is no room even for that. REPOSITORY_IN_USE names the owner's process id when known. Call the result to let go. */
export function takeFileLock(path: string, ownerPath: string): () => void {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(path, { timeout: 0 });
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database?.close();
    const { errcode } = error as { errcode?: number };
    if (errcode === SQLITE_BUSY) throw inUse(dirname(path), ownerPath, error);
    if (errcode === SQLITE_FULL)
      throw new TidemarkError('REPOSITORY_FULL', `no space left in ${dirname(path)}`, { path }, error);
    throw storageError(error, path);
  }
  const held = database;
  try {
    writeFileSync(ownerPath, `${process.pid}\n`);
  } catch {
    // For messages only; a full disk must not keep a repository from being opened.
  }
  return () => held.close();
}

function inUse(folder: string, ownerPath: string, cause: unknown): TidemarkError {
  const pid = ownerPid(ownerPath);
  const who = pid === null ? 'another process' : `process ${pid}`;
  return new TidemarkError('REPOSITORY_IN_USE', `${who} owns the repository ${folder}`, { folder, pid }, cause);
}

function ownerPid(ownerPath: string): number | null {
  try {
    const pid = Number.parseInt(readFileSync(ownerPath, 'utf8'), 10);
    return Number.isSafeInteger(pid) ? pid : null;
  } catch {
    return null;
  }
}

/**
 * One owner per repository: an exclusive SQLite transaction on `lock`, which the system ends with the process.
 * The owner's process id lies in a file of its own: reading `lock` itself would drop the process's POSIX lock.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { storageError } from './files.ts';
import type { Layout } from './layout.ts';

const SQLITE_BUSY = 5;

/** REPOSITORY_IN_USE names the owner's process id when known. Call the result to let go. */
export function takeLock(layout: Layout): () => void {
  let database: DatabaseSync | undefined;
  try {
    database = new DatabaseSync(layout.lock, { timeout: 0 });
    database.exec('BEGIN EXCLUSIVE');
  } catch (error) {
    database?.close();
    if ((error as { errcode?: number }).errcode === SQLITE_BUSY) throw inUse(layout, error);
    throw storageError(error, layout.lock);
  }
  const held = database;
  try {
    writeFileSync(layout.lockOwner, `${process.pid}\n`);
  } catch {
    // For messages only; a full disk must not keep a repository from being opened.
  }
  return () => held.close();
}

function inUse(layout: Layout, cause: unknown): TidemarkError {
  const pid = ownerPid(layout);
  const who = pid === null ? 'another process' : `process ${pid}`;
  return new TidemarkError(
    'REPOSITORY_IN_USE',
    `${who} owns the repository ${layout.folder}`,
    { folder: layout.folder, pid },
    cause,
  );
}

function ownerPid(layout: Layout): number | null {
  try {
    const pid = Number.parseInt(readFileSync(layout.lockOwner, 'utf8'), 10);
    return Number.isSafeInteger(pid) ? pid : null;
  } catch {
    return null;
  }
}

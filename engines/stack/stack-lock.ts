/** One supervisor per state folder. The lock file holds who; one left by a killed supervisor is taken over. */
import { linkSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { identityOf, isRunning, type ProcessIdentity } from './process-identity.ts';

function readHolder(file: string): ProcessIdentity | null {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as ProcessIdentity;
  } catch {
    return null;
  }
}

/** Link is atomic and, unlike a create followed by a write, never shows an empty lock. */
function tryLink(own: string, lockFile: string): boolean {
  try {
    linkSync(own, lockFile);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw error;
  }
}

/** Moves a dead holder's lock away; if a living one took it in between, puts that one back. */
function removeStale(lockFile: string, aside: string): void {
  try {
    renameSync(lockFile, aside);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  const moved = readHolder(aside);
  if (moved !== null && isRunning(moved)) tryLink(aside, lockFile);
  rmSync(aside, { force: true });
}

/** Returns what releases it. STACK_RUNNING, with the pid, when another supervisor lives. */
export function takeStackLock(lockFile: string): () => void {
  const self = identityOf(process.pid)!;
  const own = `${lockFile}.${process.pid}`;
  writeFileSync(own, JSON.stringify(self));
  try {
    while (!tryLink(own, lockFile)) {
      const holder = readHolder(lockFile);
      if (holder !== null && isRunning(holder)) {
        throw new TidemarkError('STACK_RUNNING', `the stack runs already, pid ${holder.pid}`, { pid: holder.pid });
      }
      removeStale(lockFile, `${own}.stale`);
    }
  } finally {
    rmSync(own, { force: true });
  }
  let held = true;
  return () => {
    // A second release must not take away the lock of whoever came after.
    if (held) rmSync(lockFile, { force: true });
    held = false;
  };
}

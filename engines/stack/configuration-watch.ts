/** Watches machine.json by its modification time, each 500 ms: cheap, and works on every file system. */
import { createHash } from 'node:crypto';
import { readFile, stat } from 'node:fs/promises';
import type { Clock } from '../../schema/domain/seams.ts';

const POLL_MS = 500;

/** SHA-256 of the file, hex; null when there is none. */
export async function configurationDigest(machineFile: string): Promise<string | null> {
  try {
    return createHash('sha256')
      .update(await readFile(machineFile))
      .digest('hex');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

const modificationOf = (file: string): Promise<string | null> =>
  stat(file, { bigint: true }).then(
    ({ mtimeNs, ino, size }) => `${mtimeNs} ${ino} ${size}`,
    () => null,
  );

/**
 * Calls `apply` with the digest of each new content, one call at a time, until the signal aborts. `applied`: digest
 * the children run with at the beginning.
 */
export async function watchConfiguration(
  machineFile: string,
  applied: string | null,
  clock: Clock,
  signal: AbortSignal,
  onTrouble: (error: unknown) => void,
  apply: (digest: string | null) => Promise<void>,
): Promise<void> {
  let seen: string | null | undefined;
  let current = applied;
  while (!signal.aborted) {
    const modification = await modificationOf(machineFile);
    if (modification !== seen) {
      try {
        const digest = await configurationDigest(machineFile);
        if (digest !== current) await apply(digest);
        current = digest;
        seen = modification;
      } catch (error) {
        // Looked at again: it may be unreadable for a moment only.
        onTrouble(error);
      }
    }
    await clock.sleep(POLL_MS, signal).catch(() => undefined);
  }
}

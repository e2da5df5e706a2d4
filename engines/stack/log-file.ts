/** Logs of children that run for months. */
import { copyFile, rm, stat, truncate } from 'node:fs/promises';

/**
 * Beyond the limit a log is copied to NAME.1, over the one before, and emptied. Its writer appends, so it goes on at the
 * beginning; what it writes between copy and emptying is lost. No log: nothing happens.
 */
export async function keepShort(file: string, limitBytes: number): Promise<void> {
  const size = await stat(file).then(
    (found) => found.size,
    () => 0,
  );
  if (size <= limitBytes) return;
  // On a full disk there is no copy, and all the more reason to empty it.
  await copyFile(file, `${file}.1`).catch(() => rm(`${file}.1`, { force: true }));
  await truncate(file, 0);
}

/** How far a restore of one disk durably came: a small file beside the target, replaced whole. */
import { open, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { DiskKey, RestorePointId } from '../../../schema/domain/ids.ts';

export type RestoreCursor = {
  restorePointId: RestorePointId;
  diskKey: DiskKey;
  sizeBytes: number;
  windowsDone: number;
};

/** Windows done; 0 when there is no cursor, or one of another restore point, disk or size. */
export async function readCursor(file: string, expected: Omit<RestoreCursor, 'windowsDone'>): Promise<number> {
  try {
    const found = JSON.parse(await readFile(file, 'utf8')) as Partial<RestoreCursor>;
    const same = (['restorePointId', 'diskKey', 'sizeBytes'] as const).every((key) => found[key] === expected[key]);
    return same && Number.isSafeInteger(found.windowsDone) && found.windowsDone! >= 0 ? found.windowsDone! : 0;
  } catch {
    return 0;
  }
}

/** Durable when it returns. The target must have been flushed before. STORAGE_ERROR. */
export async function writeCursor(file: string, cursor: RestoreCursor): Promise<void> {
  try {
    await replace(file, JSON.stringify(cursor));
  } catch (error) {
    throw new TidemarkError('STORAGE_ERROR', `restore cursor ${file}: ${messageOf(error)}`, { file }, error);
  }
}

async function replace(file: string, text: string): Promise<void> {
  const handle = await open(`${file}.new`, 'w', 0o600);
  try {
    await handle.writeFile(text);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(`${file}.new`, file);
  const folder = await open(path.dirname(file), 'r');
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}

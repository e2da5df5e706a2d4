/** How far a restore of one disk durably came: a small file beside the target, replaced whole. */
import { open, readFile, rename } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf } from '../../../schema/domain/extents.ts';
import type { DiskKey, RestorePointId } from '../../../schema/domain/ids.ts';

export type RestoreIdentity = { restorePointId: RestorePointId; diskKey: DiskKey; sizeBytes: number };
/** All below low water, and those above it, ascending. */
export type WindowsDone = { lowWater: number; above: number[] };
export type RestoreCursor = RestoreIdentity & WindowsDone;

/** Nothing is done when there is no cursor, or one of another restore point, disk or size, or of another form. */
export async function readCursor(file: string, expected: RestoreIdentity): Promise<RestoreCursor> {
  const none = { ...expected, lowWater: 0, above: [] };
  try {
    const found = JSON.parse(await readFile(file, 'utf8')) as Partial<RestoreCursor>;
    const isSame = (['restorePointId', 'diskKey', 'sizeBytes'] as const).every((key) => found[key] === expected[key]);
    return isSame && isSound(found, windowCountOf(expected.sizeBytes)) ? (found as RestoreCursor) : none;
  } catch {
    return none;
  }
}

function isSound({ lowWater, above }: Partial<WindowsDone>, windowCount: number): boolean {
  if (!Number.isSafeInteger(lowWater) || lowWater! < 0 || lowWater! > windowCount || !Array.isArray(above))
    return false;
  const isNext = (window: number, i: number): boolean => window > (above[i - 1] ?? lowWater!) && window < windowCount;
  return above.every((window, i) => Number.isSafeInteger(window) && isNext(window, i));
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

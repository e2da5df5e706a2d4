/** Files that only their owner may read: whole or not at all, durable when a call returns. */
import { chmod, mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import path from 'node:path';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

let count = 0;

/** Mode 0700, also when it was there before. */
export async function makePrivateFolder(folder: string): Promise<void> {
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await chmod(folder, 0o700);
}

/** Mode 0600. STORAGE_ERROR. */
export async function writePrivate(file: string, text: string): Promise<void> {
  const next = `${file}.${process.pid}-${(count += 1)}`;
  try {
    const handle = await open(next, 'wx', 0o600);
    try {
      await handle.writeFile(text);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(next, file);
    await syncFolder(path.dirname(file));
  } catch (error) {
    await rm(next, { force: true });
    throw new TidemarkError('STORAGE_ERROR', `cannot write ${file}: ${messageOf(error)}`, { file }, error);
  }
}

/** An empty file, mode 0600. False: it was there. */
export async function makePrivate(file: string): Promise<boolean> {
  try {
    await (await open(file, 'wx', 0o600)).close();
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return false;
    throw new TidemarkError('STORAGE_ERROR', `cannot write ${file}: ${messageOf(error)}`, { file }, error);
  }
}

export async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Null: it is not there. STORAGE_ERROR. */
export async function readIfThere(file: string): Promise<string | null> {
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new TidemarkError('STORAGE_ERROR', `cannot read ${file}: ${messageOf(error)}`, { file }, error);
  }
}

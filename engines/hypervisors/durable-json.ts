/** Small JSON files that are replaced whole: after a crash one has its old or its new content, never a mixture. */
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

/** Durable when it resolves; folders are made if need be. STORAGE_ERROR. */
export async function writeJson(path: string, content: unknown): Promise<void> {
  try {
    await makeFolder(dirname(path));
    const file = await open(`${path}.new`, 'w', 0o600);
    try {
      await file.writeFile(`${JSON.stringify(content)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(`${path}.new`, path);
    await syncFolder(dirname(path));
  } catch (error) {
    throw storageError('write', path, error);
  }
}

/** Null: there is none. STORAGE_ERROR when it cannot be read or is damaged. */
export async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8')) as unknown;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw storageError('read', path, error);
  }
}

/** Durable when it resolves; none there is success. STORAGE_ERROR. */
export async function removeJson(path: string): Promise<void> {
  try {
    await rm(path, { force: true });
    await syncFolder(dirname(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw storageError('remove', path, error);
  }
}

/** With what it takes to find it again after a loss of power. */
async function makeFolder(folder: string): Promise<void> {
  const topmost = await mkdir(folder, { recursive: true });
  if (topmost === undefined) return;
  for (let made = folder; made.length >= topmost.length; made = dirname(made)) await syncFolder(dirname(made));
}

async function syncFolder(folder: string): Promise<void> {
  const handle = await open(folder, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

const storageError = (what: string, file: string, error: unknown): TidemarkError =>
  new TidemarkError('STORAGE_ERROR', `cannot ${what} ${file}: ${messageOf(error)}`, { file }, error);

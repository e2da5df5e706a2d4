/** Small files, written whole: a temporary name, fsync, then the name in one step, then the folder's fsync. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { errnoOf, guarded } from './files.ts';
import { openStoredFile } from './local-file.ts';
import { folderOf, type LocalFolder } from './local-folder.ts';

const temporaryOf = (name: string): string => {
  const folder = folderOf(name);
  return folder === '' ? `.new-${name}` : `${folder}/.new-${name.slice(folder.length + 1)}`;
};

/** Its name. */
async function writeTemporary(folder: LocalFolder, name: string, text: string): Promise<string> {
  const { fs } = folder;
  const temporary = temporaryOf(name);
  await folder.unlink(temporary);
  const fd = await fs.open(folder.pathOf(temporary), 'wx+');
  try {
    const bytes = Buffer.from(text);
    for (let at = 0; at < bytes.length;) at += await fs.write(fd, bytes, at, bytes.length - at, at);
    await fs.fsync(fd);
  } catch (error) {
    await folder.unlink(temporary);
    throw error;
  } finally {
    await fs.close(fd);
  }
  return temporary;
}

/** Replaces or makes it; durable when it returns. */
export const replaceText = (folder: LocalFolder, name: string, text: string): Promise<void> =>
  guarded(folder.pathOf(name), async () => {
    await folder.within(folderOf(name), async () =>
      folder.fs.rename(folder.pathOf(await writeTemporary(folder, name, text)), folder.pathOf(name)),
    );
    await folder.sync(folderOf(name));
  });

/** False when there is one (nothing changed). Durable when it returns, either way. */
export const putTextIfAbsent = (folder: LocalFolder, name: string, text: string): Promise<boolean> =>
  guarded(folder.pathOf(name), async () => {
    const isNew = await folder.within(folderOf(name), async () => {
      const temporary = await writeTemporary(folder, name, text);
      try {
        await folder.fs.link(folder.pathOf(temporary), folder.pathOf(name));
        return true;
      } catch (error) {
        if (errnoOf(error) === 'EEXIST') return false;
        throw error;
      } finally {
        await folder.unlink(temporary);
      }
    });
    await folder.sync(folderOf(name));
    return isNew;
  });

/** Null when there is none. */
export async function readText(folder: LocalFolder, name: string, maxBytes: number): Promise<string | null> {
  const file = await openStoredFile(folder, name);
  if (!file) return null;
  try {
    const lengthBytes = await file.lengthBytes();
    const path = folder.pathOf(name);
    if (lengthBytes > maxBytes)
      throw new TidemarkError('REPOSITORY_CORRUPT', `${path} is longer than ${maxBytes} bytes`, { path });
    const bytes = Buffer.alloc(lengthBytes);
    return bytes.toString('utf8', 0, await file.read(bytes, 0));
  } finally {
    await file.close();
  }
}

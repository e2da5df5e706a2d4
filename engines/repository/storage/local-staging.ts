/** Staging as a folder of this machine. */
import { dirname } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { FileSystem } from './file-system.ts';
import { errnoOf, guarded, storageError } from './files.ts';
import { layout } from './layout.ts';
import { putTextIfAbsent, readText, replaceText } from './local-documents.ts';
import { createStagingFile, openStagingFile, openStoredFile } from './local-file.ts';
import { folderOf, type LocalFolder } from './local-folder.ts';
import type { Staging } from './staging.ts';

export function createLocalStaging(folder: LocalFolder): Staging {
  const { fs, root } = folder;
  return {
    prepare: () => prepare(folder),
    lock: (name) => fs.lock(folder.pathOf(name), folder.pathOf(layout.ownerOf(name))),
    makeFolder: (name) => guarded(folder.pathOf(name), () => folder.ensure(name)),
    createSync: (name) => createStagingFile(folder, name),
    openFile: (name) => openStagingFile(folder, name),
    open: (name) => openStoredFile(folder, name),
    readText: (name, maxBytes) => readText(folder, name, maxBytes),
    readTextSync: (name) => readTextSync(folder, name),
    replace: (name, text) => replaceText(folder, name, text),
    putIfAbsent: (name, text) => putTextIfAbsent(folder, name, text),
    confirm: (name) => guarded(folder.pathOf(name), () => folder.sync(folderOf(name))),
    list: (of, { temporary = false } = {}) =>
      guarded(folder.pathOf(of), async () =>
        (await folder.list(of)).map(({ name }) => name).filter((name) => temporary || !name.startsWith('.')),
      ),
    remove: (name) => guarded(folder.pathOf(name), () => folder.removeAll(name)),
    freeBytes: () => guarded(root, () => fs.freeBytes(root)),
    locate: (name) => folder.pathOf(name),
  };
}

function readTextSync(folder: LocalFolder, name: string): string {
  try {
    return Buffer.from(folder.fs.readFileSync(folder.pathOf(name))).toString();
  } catch (error) {
    throw storageError(error, folder.pathOf(name));
  }
}

async function prepare({ fs, root }: LocalFolder): Promise<void> {
  try {
    await makeFolder(fs, root);
    const names = (await fs.readdir(root)).map(({ name }) => name);
    // One that a dead process made looks like any other.
    if (!names.includes(layout.repositoryFile)) await syncAbove(fs, root);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST' && errnoOf(error) !== 'ENOTDIR') throw storageError(error, root);
    const message = `${root} is not the repository meant: it is a file`;
    throw new TidemarkError('REPOSITORY_NOT_ONE', message, { folder: root }, error);
  }
}

/** With those above it. */
async function makeFolder(fs: FileSystem, path: string): Promise<void> {
  try {
    // What VMs held is not everybody's to read.
    await fs.mkdir(path, 0o700);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return;
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
    await makeFolder(fs, dirname(path));
    await makeFolder(fs, path);
  }
}

/** What we may not open there we have not made. */
const NOT_OURS = ['EACCES', 'EPERM', 'EINVAL'];

/** Makes the names of a folder and of all above it durable. */
async function syncAbove(fs: FileSystem, path: string): Promise<void> {
  const parent = dirname(path);
  if (parent === path) return;
  try {
    const fd = await fs.open(parent, 'r');
    try {
      await fs.fsync(fd);
    } finally {
      await fs.close(fd);
    }
  } catch (error) {
    if (!NOT_OURS.includes(errnoOf(error) ?? '')) throw error;
  }
  await syncAbove(fs, parent);
}

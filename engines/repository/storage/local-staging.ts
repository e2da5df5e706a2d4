/** Staging as a folder of this machine. */
import { dirname } from 'node:path';
import { TidemarkError } from '../../../schema/domain/errors.ts';
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
    lock: () => fs.lock(folder.pathOf(layout.lock), folder.pathOf(layout.lockOwner)),
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
    await fs.readdir(root);
  } catch (error) {
    if (errnoOf(error) !== 'EEXIST' && errnoOf(error) !== 'ENOTDIR') throw storageError(error, root);
    const message = `${root} is not the repository meant: it is a file`;
    throw new TidemarkError('REPOSITORY_NOT_ONE', message, { folder: root }, error);
  }
}

/** With those above it; the name of each new one durable. */
async function makeFolder(fs: LocalFolder['fs'], path: string): Promise<void> {
  try {
    // What VMs held is not everybody's to read.
    await fs.mkdir(path, 0o700);
  } catch (error) {
    if (errnoOf(error) === 'EEXIST') return;
    if (errnoOf(error) !== 'ENOENT' || dirname(path) === path) throw error;
    await makeFolder(fs, dirname(path));
    await fs.mkdir(path, 0o700);
  }
  const parent = await fs.open(dirname(path), 'r');
  try {
    await fs.fsync(parent);
  } finally {
    await fs.close(parent);
  }
}

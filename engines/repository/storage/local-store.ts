/** The Store as a folder beside the staging area, on the same file system: putting is a rename. */
import { errnoOf, guarded } from './files.ts';
import { layout } from './layout.ts';
import { putTextIfAbsent, readText } from './local-documents.ts';
import { openStoredFile } from './local-file.ts';
import { folderOf, type LocalFolder } from './local-folder.ts';
import type { Store, TrashedObject } from './store.ts';

const trashName = ({ epoch, name }: TrashedObject): string => `${layout.trash}/${epoch}/${name}`;

export function createLocalStore(folder: LocalFolder): Store {
  return {
    put: (name, stagingName) => move(folder, stagingName, name, 'must be there'),
    putIfAbsent: (name, text) => putTextIfAbsent(folder, name, text),
    confirm: (name) => guarded(folder.pathOf(name), () => folder.sync(folderOf(name))),
    open: (name) => openStoredFile(folder, name),
    readText: (name, maxBytes) => readText(folder, name, maxBytes),
    list: (prefix) => guarded(folder.pathOf(prefix), () => listBelow(folder, prefix)),
    remove: (name) => removeDurably(folder, name),
    moveToTrash: (object) => move(folder, object.name, trashName(object), 'may be gone'),
    restoreFromTrash: (object) => move(folder, trashName(object), object.name, 'may be gone'),
    removeFromTrash: (object) => removeDurably(folder, trashName(object)),
    listTrash: () => guarded(folder.pathOf(layout.trash), () => listTrash(folder)),
    openTrashed: (object) => openStoredFile(folder, trashName(object)),
    protect: (names, on) =>
      folder.fs.setImmutable(
        names.map((name) => folder.pathOf(name)),
        on,
      ),
    freeBytes: () => guarded(folder.root, () => folder.fs.freeBytes(folder.root)),
    locate: (name) => folder.pathOf(name),
  };
}

/** Durable at its new name before it is gone, durably, from the old. Done when it lies at the new one already. */
const move = (folder: LocalFolder, from: string, to: string, source: 'must be there' | 'may be gone'): Promise<void> =>
  guarded(folder.pathOf(to), async () => {
    try {
      await folder.within(folderOf(to), () => folder.fs.rename(folder.pathOf(from), folder.pathOf(to)));
    } catch (error) {
      if (errnoOf(error) !== 'ENOENT') throw error;
      if (source === 'must be there' && !(await exists(folder, to))) throw error;
    }
    await folder.sync(folderOf(to));
    await syncIfThere(folder, folderOf(from));
  });

async function exists(folder: LocalFolder, name: string): Promise<boolean> {
  const file = await openStoredFile(folder, name);
  await file?.close();
  return file !== null;
}

const removeDurably = (folder: LocalFolder, name: string): Promise<void> =>
  guarded(folder.pathOf(name), async () => {
    await folder.unlink(name);
    await syncIfThere(folder, folderOf(name));
  });

async function syncIfThere(folder: LocalFolder, of: string): Promise<void> {
  try {
    await folder.sync(of);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}

async function listBelow(folder: LocalFolder, prefix: string): Promise<string[]> {
  const names: string[] = [];
  for (const entry of await folder.list(prefix)) {
    if (entry.name.startsWith('.')) continue;
    const name = `${prefix}/${entry.name}`;
    if (entry.isFolder) names.push(...(await listBelow(folder, name)));
    else names.push(name);
  }
  return names;
}

async function listTrash(folder: LocalFolder): Promise<TrashedObject[]> {
  const objects: TrashedObject[] = [];
  for (const { name: epoch } of await folder.list(layout.trash)) {
    if (!/^\d+$/.test(epoch)) continue;
    const below = `${layout.trash}/${epoch}`;
    for (const name of await listBelow(folder, below))
      objects.push({ epoch: Number(epoch), name: name.slice(below.length + 1) });
  }
  return objects.sort((a, b) => a.epoch - b.epoch);
}

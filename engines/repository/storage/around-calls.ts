/** What decorators have in common: every call of a Staging, a Store and their files, with something around it. */
import type { Staging, StagingFile } from './staging.ts';
import type { Storage } from './storage.ts';
import type { Store, StoredFile } from './store.ts';

/** `operation`: the method. `bytes`: given to be written, or asked for; 0 where that is not the matter. */
export type StorageCall = { half: 'staging' | 'store'; operation: string; name: string; bytes: number };

export type Around = {
  async<T>(call: StorageCall, work: () => Promise<T>): Promise<T>;
  /** Of a lane's thread: must not wait. */
  sync<T>(call: StorageCall, work: () => T): T;
};

export const aroundCalls = ({ staging, store }: Storage, around: Around): Storage => ({
  staging: aroundStaging(staging, around),
  store: aroundStore(store, around),
});

function aroundStaging(staging: Staging, around: Around): Staging {
  const call = (operation: string, name = '', bytes = 0): StorageCall => ({ half: 'staging', operation, name, bytes });
  const appending = (file: StagingFile): StagingFile => aroundStagingFile(file, around);
  return {
    prepare: () => around.async(call('prepare'), () => staging.prepare()),
    lock: (name) => around.sync(call('lock', name), () => staging.lock(name)),
    makeFolder: (name) => around.async(call('makeFolder', name), () => staging.makeFolder(name)),
    createSync: (name) => appending(around.sync(call('createSync', name), () => staging.createSync(name))),
    openFile: async (name) => appending(await around.async(call('openFile', name), () => staging.openFile(name))),
    open: async (name) =>
      aroundStoredFile(await around.async(call('open', name), () => staging.open(name)), call('read', name), around),
    readText: (name, maxBytes) => around.async(call('readText', name), () => staging.readText(name, maxBytes)),
    readTextSync: (name) => around.sync(call('readTextSync', name), () => staging.readTextSync(name)),
    replace: (name, text) => around.async(call('replace', name, text.length), () => staging.replace(name, text)),
    putIfAbsent: (name, text) =>
      around.async(call('putIfAbsent', name, text.length), () => staging.putIfAbsent(name, text)),
    confirm: (name) => around.async(call('confirm', name), () => staging.confirm(name)),
    list: (folder, options) => around.async(call('list', folder), () => staging.list(folder, options)),
    remove: (name) => around.async(call('remove', name), () => staging.remove(name)),
    freeBytes: () => around.async(call('freeBytes'), () => staging.freeBytes()),
    locate: (name) => staging.locate(name),
  };
}

function aroundStagingFile(file: StagingFile, around: Around): StagingFile {
  const { name } = file;
  const call = (operation: string, bytes = 0): StorageCall => ({ half: 'staging', operation, name, bytes });
  return {
    name,
    lengthBytes: () => file.lengthBytes(),
    appendSync: (...parts) => {
      const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
      return around.sync(call('appendSync', bytes), () => file.appendSync(...parts));
    },
    append: (bytes) => around.async(call('append', bytes.byteLength), () => file.append(bytes)),
    read: (into, position) => around.async(call('read', into.byteLength), () => file.read(into, position)),
    cutBack: (lengthBytes) => around.async(call('cutBack'), () => file.cutBack(lengthBytes)),
    sync: () => around.async(call('sync'), () => file.sync()),
    finish: () => around.async(call('finish'), () => file.finish()),
    isBroken: () => file.isBroken(),
    close: () => file.close(),
    discardSync: () => around.sync(call('discardSync'), () => file.discardSync()),
  };
}

function aroundStoredFile(file: StoredFile | null, call: StorageCall, around: Around): StoredFile | null {
  return (
    file && {
      lengthBytes: () => around.async({ ...call, operation: 'lengthBytes' }, () => file.lengthBytes()),
      read: (into, position) => around.async({ ...call, bytes: into.byteLength }, () => file.read(into, position)),
      close: () => file.close(),
    }
  );
}

function aroundStore(store: Store, around: Around): Store {
  const call = (operation: string, name = '', bytes = 0): StorageCall => ({ half: 'store', operation, name, bytes });
  return {
    put: (name, stagingName) => around.async(call('put', name), () => store.put(name, stagingName)),
    putIfAbsent: (name, text) =>
      around.async(call('putIfAbsent', name, text.length), () => store.putIfAbsent(name, text)),
    confirm: (name) => around.async(call('confirm', name), () => store.confirm(name)),
    open: async (name) =>
      aroundStoredFile(await around.async(call('open', name), () => store.open(name)), call('read', name), around),
    readText: (name, maxBytes) => around.async(call('readText', name), () => store.readText(name, maxBytes)),
    list: (prefix) => around.async(call('list', prefix), () => store.list(prefix)),
    remove: (name) => around.async(call('remove', name), () => store.remove(name)),
    moveToTrash: (object) => around.async(call('moveToTrash', object.name), () => store.moveToTrash(object)),
    restoreFromTrash: (object) =>
      around.async(call('restoreFromTrash', object.name), () => store.restoreFromTrash(object)),
    removeFromTrash: (object) =>
      around.async(call('removeFromTrash', object.name), () => store.removeFromTrash(object)),
    listTrash: () => around.async(call('listTrash'), () => store.listTrash()),
    openTrashed: async (object) =>
      aroundStoredFile(
        await around.async(call('openTrashed', object.name), () => store.openTrashed(object)),
        call('read', object.name),
        around,
      ),
    protect: (names, on) => around.async(call('protect', names[0]), () => store.protect(names, on)),
    freeBytes: () => around.async(call('freeBytes'), () => store.freeBytes()),
    locate: (name) => store.locate(name),
  };
}

/** The one suite that every implementation of Staging and Store passes, and every decorator over one. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { layout } from './layout.ts';
import type { Storage } from './storage.ts';
import type { StagingFile } from './staging.ts';
import type { StoredFile } from './store.ts';

/** Fresh for each test: an area that was never prepared, in a place where one can be. */
export type StorageWorld = {
  storage: Storage;
  /** The same as another thread or process opens it. */
  again(): Storage;
  /** Makes the next sync of a staging file fail. */
  failSync(): void;
  close(): Promise<void>;
};

const bytesOf = (text: string): Buffer => Buffer.from(text);

async function contentOf(opening: Promise<StoredFile | null>): Promise<string | null> {
  const file = await opening;
  if (!file) return null;
  const bytes = Buffer.alloc(await file.lengthBytes());
  const got = await file.read(bytes, 0);
  await file.close();
  return bytes.toString('utf8', 0, got);
}

export function storageContract(title: string, makeWorld: () => Promise<StorageWorld>): void {
  describe(`${title}: the contract of`, () => {
    let world: StorageWorld;
    beforeEach(async () => {
      world = await makeWorld();
      await world.storage.staging.prepare();
    });
    afterEach(() => world.close());
    stagingContract(() => world);
    stagingFileContract(() => world);
    storeContract(() => world);
    trashContract(() => world);
  });
}

function stagingContract(world: () => StorageWorld): void {
  const staging = () => world().storage.staging;
  const other = () => world().again().staging;

  describe('staging', () => {
    it('is prepared more than once, and has one owner at a time', async () => {
      await staging().prepare();
      const release = staging().lock(layout.lock);
      expect(() => other().lock(layout.lock)).toThrow(expect.objectContaining({ code: 'REPOSITORY_IN_USE' }) as Error);
      // Of another name it is another lock.
      other().lock(layout.fileLock)();
      release();
      other().lock(layout.lock)();
      expect(await staging().freeBytes()).toBeGreaterThan(0);
    });

    it('replaces a text whole, in folders that appear with it; what is not there is null', async () => {
      expect(await staging().readText('a/b/c', 9)).toBeNull();
      await staging().replace('a/b/c', 'first');
      await staging().replace('a/b/c', 'second');
      expect(await other().readText('a/b/c', 6)).toBe('second');
      expect(other().readTextSync('a/b/c')).toBe('second');
      await expect(staging().readText('a/b/c', 5)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
      expect(() => staging().readTextSync('a/x')).toThrow(expect.objectContaining({ code: 'STORAGE_ERROR' }) as Error);
    });

    it('of many who put a text one wins, whole, and nothing is left beside it', async () => {
      const puts = [];
      for (const text of ['a', 'b', 'c']) puts.push(await staging().putIfAbsent('d/x', text.repeat(9000)));
      expect(puts).toEqual([true, false, false]);
      expect(await other().readText('d/x', 9000)).toBe('a'.repeat(9000));
      await staging().confirm('d/x');
      expect(await staging().list('d', { temporary: true })).toEqual(['x']);
    });

    it('lists what lies directly in a folder, without what is temporary; none where there is no folder', async () => {
      for (const name of ['f/2', 'f/10', 'f/1/x', 'f/.new-3']) await staging().replace(name, '');
      await staging().makeFolder('f/3');
      expect(await other().list('f')).toEqual(['1', '10', '2', '3']);
      expect(await other().list('f', { temporary: true })).toEqual(['.new-3', '1', '10', '2', '3']);
      expect(await staging().list('')).toContain('f');
      expect(await staging().list('none')).toEqual([]);
    });

    it('removes files and folders, again and again, and makes them anew', async () => {
      for (const name of ['f/1', 'f/g/2', 'f/g/.new-3']) await staging().replace(name, 'x');
      for (const name of ['f/1', 'f/1', 'f/g', 'f/g', 'none/1']) await staging().remove(name);
      expect(await staging().list('f', { temporary: true })).toEqual([]);
      await staging().replace('f/g/2', 'anew');
      expect(await staging().readText('f/g/2', 9)).toBe('anew');
    });

    it('names that lead elsewhere are refused', async () => {
      for (const name of ['../x', 'a/../x', '/x', 'a//x', './x'])
        await expect((async () => staging().readText(name, 1))()).rejects.toMatchObject({ code: 'BUG' });
    });
  });
}

function stagingFileContract(world: () => StorageWorld): void {
  const staging = () => world().storage.staging;
  const other = () => world().again().staging;

  describe('a staging file', () => {
    const whole = async (file: StagingFile): Promise<string> => {
      const bytes = Buffer.alloc(file.lengthBytes());
      return bytes.toString('utf8', 0, await file.read(bytes, 0));
    };

    it('grows at its end, in both ways, and is seen by others at once', async () => {
      const file = staging().createSync('p/1');
      expect([file.appendSync(bytesOf('one '), bytesOf('two ')), file.lengthBytes()]).toEqual([0, 8]);
      expect(await file.append(bytesOf('three'))).toBe(8);
      await file.sync();
      expect(await contentOf(other().open('p/1'))).toBe('one two three');
      file.close();
      file.close();
      expect(() => file.appendSync(bytesOf('x'))).toThrow(expect.objectContaining({ code: 'STORAGE_ERROR' }) as Error);
      expect(() => staging().createSync('p/1')).toThrow(expect.objectContaining({ code: 'STORAGE_ERROR' }) as Error);
    });

    it('is opened or made, read at any place, cut back and grown again', async () => {
      const first = await staging().openFile('l/1');
      await first.append(bytesOf('0123456789'));
      await first.finish();
      const file = await other().openFile('l/1');
      expect(file.lengthBytes()).toBe(10);
      const into = Buffer.alloc(6);
      expect([await file.read(into, 7), into.toString('utf8', 0, 3), await file.read(into, 10)]).toEqual([3, '789', 0]);
      await file.cutBack(4);
      expect(await file.append(bytesOf('x'))).toBe(4);
      await file.sync();
      expect([await whole(file), file.isBroken()]).toEqual(['0123x', false]);
      file.close();
    });

    it('that a sync failed on is cut back to what was durable, and takes nothing more', async () => {
      const file = staging().createSync('p/1');
      file.appendSync(bytesOf('durable'));
      await file.sync();
      file.appendSync(bytesOf(' lost'));
      world().failSync();
      await expect(file.sync()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      const refused = expect.objectContaining({ code: 'STORAGE_ERROR' }) as Error;
      expect([file.isBroken(), file.lengthBytes()]).toEqual([true, 7]);
      expect(() => file.appendSync(bytesOf('x'))).toThrow(refused);
      await expect(file.append(bytesOf('x'))).rejects.toEqual(refused);
      await expect(file.sync()).rejects.toEqual(refused);
      await expect(file.finish()).rejects.toEqual(refused);
      file.close();
      expect(await contentOf(other().open('p/1'))).toBe('durable');
      const next = await staging().openFile('p/1');
      expect(await next.append(bytesOf('!'))).toBe(7);
      await next.finish();
    });

    it('is discarded without a trace', async () => {
      const file = staging().createSync('p/1');
      file.appendSync(bytesOf('x'));
      file.discardSync();
      expect([await staging().open('p/1'), await staging().list('p')]).toEqual([null, []]);
    });
  });
}

/** An object by the way of a staging file. */
async function put({ storage: { staging, store } }: StorageWorld, name: string, content = name): Promise<void> {
  const file = staging.createSync('open/1');
  file.appendSync(bytesOf(content));
  await file.finish();
  await store.put(name, 'open/1');
}

function storeContract(world: () => StorageWorld): void {
  const staging = () => world().storage.staging;
  const store = () => world().storage.store;
  const other = () => world().again().store;

  describe('store', () => {
    it('takes over a staging file, whole; said again it is complete', async () => {
      await put(world(), 'packs/ab/1', 'content');
      await store().put('packs/ab/1', 'open/1');
      expect(await staging().open('open/1')).toBeNull();
      expect(await contentOf(other().open('packs/ab/1'))).toBe('content');
      await expect(store().put('packs/ab/2', 'open/1')).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    });

    it('reads ranges, side by side, fewer bytes at the end only', async () => {
      await put(world(), 'packs/ab/1', '0123456789'.repeat(1000));
      const file = (await store().open('packs/ab/1'))!;
      const reads = Array.from({ length: 20 }, async (_, at) => {
        const into = Buffer.alloc(10);
        return [await file.read(into, at * 500 + 3), into.toString()];
      });
      for (const read of await Promise.all(reads)) expect(read).toEqual([10, '3456789012']);
      expect([await file.read(Buffer.alloc(99), 9990), await file.read(Buffer.alloc(9), 99_999)]).toEqual([10, 0]);
      await file.close();
    });

    it('of many who put a small object one wins, whole', async () => {
      expect(await store().readText('manifests/v/1', 9)).toBeNull();
      const puts = [];
      for (const text of ['a', 'b']) puts.push(await store().putIfAbsent('manifests/v/1', text.repeat(9000)));
      expect(puts).toEqual([true, false]);
      await store().confirm('manifests/v/1');
      expect(await other().readText('manifests/v/1', 9000)).toBe('a'.repeat(9000));
      await expect(store().readText('manifests/v/1', 8999)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
      expect(await store().list('manifests')).toEqual(['manifests/v/1']);
    });

    it('lists all names below a prefix; removing is for good and may be said again', async () => {
      for (const name of ['packs/ab/2', 'packs/ab/1', 'packs/cd/3', 'meta/ab/4']) await put(world(), name);
      expect(await other().list('packs')).toEqual(['packs/ab/1', 'packs/ab/2', 'packs/cd/3']);
      expect(await store().list('none')).toEqual([]);
      for (const name of ['packs/ab/1', 'packs/ab/1', 'packs/none/1']) await store().remove(name);
      expect(await other().list('packs')).toEqual(['packs/ab/2', 'packs/cd/3']);
      expect(await store().open('packs/ab/1')).toBeNull();
    });

    it('protects what it can, as often as it is said, and gives it free again', async () => {
      await put(world(), 'packs/ab/1');
      const can = await store().protect(['packs/ab/1'], true);
      expect(await store().protect(['packs/ab/1'], true)).toBe(can);
      if (can) await expect(store().remove('packs/ab/1')).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      expect(await contentOf(store().open('packs/ab/1'))).toBe('packs/ab/1');
      for (const on of [false, false]) expect(await store().protect(['packs/ab/1'], on)).toBe(can);
      await store().remove('packs/ab/1');
      expect(await store().list('packs')).toEqual([]);
    });

    it('says how much room there is, or that there is no limit', async () => {
      const freeBytes = await store().freeBytes();
      expect(freeBytes === null || freeBytes > 0).toBe(true);
    });
  });
}

function trashContract(world: () => StorageWorld): void {
  const store = () => world().storage.store;
  const other = () => world().again().store;

  describe('trash', () => {
    it('moves to the trash and back, and out of it for good, each as often as it is said', async () => {
      const [one, two] = [
        { epoch: 12, name: 'packs/ab/1' },
        { epoch: 7, name: 'meta/cd/2' },
      ];
      for (const { name } of [one, two]) await put(world(), name);
      expect(await store().openTrashed(one)).toBeNull();
      for (const object of [one, one, two]) await store().moveToTrash(object);
      expect([await store().open(one.name), await store().list('packs')]).toEqual([null, []]);
      expect(await contentOf(store().openTrashed(one))).toBe(one.name);
      expect(await other().listTrash()).toEqual([two, one]);
      for (const object of [one, one]) await store().restoreFromTrash(object);
      expect(await contentOf(other().open(one.name))).toBe(one.name);
      for (const object of [two, two]) await store().removeFromTrash(object);
      expect(await other().listTrash()).toEqual([]);
      await store().restoreFromTrash(two);
      expect(await store().open(two.name)).toBeNull();
    });

    it('reads on what was opened before it moved, or fails, but never gives other bytes', async () => {
      await put(world(), 'packs/ab/1', 'content');
      const file = (await store().open('packs/ab/1'))!;
      await store().moveToTrash({ epoch: 1, name: 'packs/ab/1' });
      const into = Buffer.alloc(7);
      const got = await file.read(into, 0).catch(() => null);
      if (got !== null) expect(into.toString('utf8', 0, got)).toBe('content');
      await file.close();
    });
  });
}

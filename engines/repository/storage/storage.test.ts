import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { storageContract } from './contract.ts';
import { nodeFileSystem } from './file-system.ts';
import { storageError } from './files.ts';
import { openStorage } from './storage.ts';
import { createTurns } from './turns.ts';

const temporaryFolder = (): Promise<string> => mkdtemp(join(tmpdir(), 'td-storage-'));

storageContract('a local folder', async () => {
  const root = await temporaryFolder();
  let failing = 0;
  const fdatasync = async (fd: number): Promise<void> => {
    if ((failing -= 1) === 0) throw Object.assign(new Error('failed'), { code: 'EIO' });
    await nodeFileSystem.fdatasync(fd);
  };
  const description = { kind: 'folder', folder: join(root, 'deep', 'r') } as const;
  const open = () => openStorage(description, { ...nodeFileSystem, fdatasync });
  return {
    storage: open(),
    again: open,
    failSync: () => void (failing = 1),
    close: () => rm(root, { recursive: true, force: true }),
  };
});

describe('a local folder', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await temporaryFolder();
  });
  afterEach(() => rm(folder, { recursive: true, force: true }));
  const storage = () => openStorage({ kind: 'folder', folder });

  test('what a dead process was writing is in nobody’s way', async () => {
    await writeFile(join(folder, '.new-file'), 'of a dead process');
    await storage().staging.replace('file', 'whole');
    expect(await readdir(folder)).toEqual(['file']);
  });

  test('a folder that somebody removes is made again', async () => {
    const { staging, store } = storage();
    for (const round of ['1', '2']) {
      await staging.replace('a/b/text', round);
      await store.putIfAbsent('c/d/text', round);
      const file = staging.createSync(`open/packs/${round}`);
      await file.finish();
      await store.put(`packs/ab/${round}`, `open/packs/${round}`);
      for (const name of ['a', 'c', 'packs', 'open/packs']) await rm(join(folder, name), { recursive: true });
    }
    expect(await readdir(folder)).toEqual(['open']);
  });

  test('errors name the file, and a full disk is told apart', async () => {
    const failed = (code: string) => storageError(Object.assign(new Error('why'), { code }), '/r/file');
    expect(failed('ENOSPC')).toMatchObject({ code: 'REPOSITORY_FULL', message: 'no space left in /r' });
    expect(failed('EDQUOT')).toMatchObject({ code: 'REPOSITORY_FULL' });
    expect(failed('EACCES')).toMatchObject({ code: 'STORAGE_ERROR', details: { path: '/r/file', errno: 'EACCES' } });
    await mkdir(join(folder, 'dir'));
    await expect(storage().staging.replace('dir', 'x')).rejects.toMatchObject({
      code: 'STORAGE_ERROR',
      message: expect.stringContaining(join(folder, 'dir')) as string,
    });
    const none = openStorage({ kind: 'folder', folder: join(folder, 'none') });
    await expect(none.staging.freeBytes()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  });
});

test('turns: one after another by key, others beside; a failure does not hold up the next', async () => {
  const turns = createTurns();
  const seen: string[] = [];
  const work =
    (name: string, fails = false) =>
    async (): Promise<string> => {
      seen.push(`${name} begins`);
      await new Promise((resolve) => setImmediate(resolve));
      seen.push(`${name} ends`);
      if (fails) throw new Error(name);
      return name;
    };
  const all = [turns.take('a', work('1', true)), turns.take('a', work('2')), turns.take('b', work('3'))];
  expect((await Promise.allSettled(all)).map((one) => one.status)).toEqual(['rejected', 'fulfilled', 'fulfilled']);
  expect(seen.indexOf('2 begins')).toBeGreaterThan(seen.indexOf('1 ends'));
  expect(seen.indexOf('3 begins')).toBeLessThan(seen.indexOf('1 ends'));
  await turns.idle();
});

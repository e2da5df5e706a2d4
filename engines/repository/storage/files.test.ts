import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import {
  ensureFolder,
  freeBytesOf,
  listFolder,
  putIfAbsent,
  readTextFile,
  removeTree,
  replaceFile,
  storageError,
} from './files.ts';
import { layoutOf, vmKeyOf } from './layout.ts';
import { createTurns } from './turns.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-files-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

test('of many who put a file one wins, whole, and leaves nothing beside it', async () => {
  const path = join(folder, 'file');
  await writeFile(join(folder, '.new-file'), 'of a dead process');
  const puts = [];
  for (const text of ['a', 'b', 'c']) puts.push(await putIfAbsent(path, text.repeat(9000)));
  expect(puts).toEqual([true, false, false]);
  expect(await readFile(path, 'utf8')).toBe('a'.repeat(9000));
  await replaceFile(path, 'other');
  expect(await readTextFile(path, 5)).toBe('other');
  expect(await readdir(folder)).toEqual(['file']);
});

test('reading: null for none, an error for too long; listing leaves out temporary names', async () => {
  expect(await readTextFile(join(folder, 'none'), 10)).toBeNull();
  await writeFile(join(folder, 'long'), 'x'.repeat(11));
  await expect(readTextFile(join(folder, 'long'), 10)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
  await writeFile(join(folder, '.new-x'), '');
  await ensureFolder(join(folder, 'a', 'b', 'c'));
  await ensureFolder(join(folder, 'a', 'b', 'c'));
  expect((await listFolder(folder)).map((entry) => entry.name)).toEqual(['a', 'long']);
  expect(await listFolder(join(folder, 'none'))).toEqual([]);
  await removeTree(join(folder, 'a'));
  await removeTree(join(folder, 'a'));
});

test('errors name the file, and a full disk is told apart', async () => {
  const failed = (code: string) => storageError(Object.assign(new Error('why'), { code }), '/r/file');
  expect(failed('ENOSPC')).toMatchObject({ code: 'REPOSITORY_FULL', message: 'no space left in /r' });
  expect(failed('EDQUOT')).toMatchObject({ code: 'REPOSITORY_FULL' });
  expect(failed('EACCES')).toMatchObject({ code: 'STORAGE_ERROR', details: { path: '/r/file', errno: 'EACCES' } });
  await mkdir(join(folder, 'dir'));
  await expect(replaceFile(join(folder, 'dir'), 'x')).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  await expect(freeBytesOf(join(folder, 'none'))).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
});

test('a VM is a safe folder name, whatever its id', () => {
  expect(vmKeyOf('22222222-0000-4000-8000-000000000001')).toBe('22222222-0000-4000-8000-000000000001');
  for (const id of ['../../etc', '.hidden', '', 'a/b', 'x'.repeat(65), 'ä'])
    expect(layoutOf('/r').manifestFolder(id)).toMatch(/^\/r\/manifests\/h-[0-9a-f]{32}$/);
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

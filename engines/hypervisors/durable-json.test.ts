import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { readJson, removeJson, writeJson } from './durable-json.ts';

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-json-'));
});
afterEach(() => rm(folder, { recursive: true }));

it('is replaced whole, over what a writer that died left, and removed', async () => {
  const file = join(folder, 'a', 'b', 'c.json');
  expect(await readJson(file)).toBeNull();
  await removeJson(file);
  await writeJson(file, { count: 1 });
  await writeFile(`${file}.new`, '{"count": 2, "and');
  expect(await readJson(file)).toEqual({ count: 1 });
  await writeJson(file, { count: 3 });
  expect(await readFile(file, 'utf8')).toBe('{"count":3}\n');
  expect(await readdir(join(folder, 'a', 'b'))).toEqual(['c.json']);
  await removeJson(file);
  await removeJson(file);
  expect(await readJson(file)).toBeNull();
});

it('says which file cannot be read, written or removed', async () => {
  const damaged = join(folder, 'damaged.json');
  await writeFile(damaged, '{"count": ');
  const of = (file: string) => ({ code: 'STORAGE_ERROR', message: expect.stringContaining(file) });
  await expect(readJson(damaged)).rejects.toMatchObject(of(damaged));
  const below = join(damaged, 'x.json');
  await expect(writeJson(below, {})).rejects.toMatchObject(of(below));
  await expect(removeJson(below)).rejects.toMatchObject(of(below));
});

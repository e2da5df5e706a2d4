import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { repositoryId } from '../../schema/domain/ids.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { openFilesIn } from '../../tests/fixtures/open-files.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import { createTestRepository, DISK } from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../tests/fixtures/repository/verbs.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { SetClock } from '../../tests/fixtures/set-clock.ts';
import { openRepository } from './open-repository.ts';
import type { Repository } from './repository.ts';
import { openStorage } from './storage/storage.ts';

let root: string;
let folder: string;
const opened: Repository[] = [];
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), 'td-open-'));
  folder = join(root, 'deep', 'r');
});
afterEach(async () => {
  for (const repository of opened.splice(0)) await repository.close();
  await rm(root, { recursive: true, force: true });
});

const open = async (id = 'main', secret: Secret | null = null): Promise<Repository> => {
  const indexFolder = join(root, 'index');
  const storage = openStorage({ kind: 'folder', folder });
  const options = { storage, repositoryId: repositoryId(id), secret, indexFolder, seams: testSeams() };
  const repository = await openRepository(options);
  opened.push(repository);
  return repository;
};
const shut = async (): Promise<void> => opened.pop()!.close();
const repositoryJson = (): string => join(folder, 'repository.json');

describe('a folder', () => {
  test('that is missing becomes a repository, and stays the same one', async () => {
    await open();
    const text = await readFile(repositoryJson(), 'utf8');
    expect(JSON.parse(text)).toMatchObject({ format: 1, repository: 'main', generation: 0, keySlots: [] });
    await shut();
    expect((await open()).listSealed()).toEqual([]);
    expect(await readFile(repositoryJson(), 'utf8')).toBe(text);
  });

  test('that is empty, or in which the first start died, becomes a repository', async () => {
    await mkdir(join(folder, 'lost+found'), { recursive: true });
    for (const name of ['lock', 'lock.owner', '.new-repository.json']) await writeFile(join(folder, name), '');
    await open();
    expect(existsSync(repositoryJson())).toBe(true);
  });

  test('that holds something else is refused and left alone', async () => {
    await mkdir(folder, { recursive: true });
    await writeFile(join(folder, 'holiday.jpg'), 'mine');
    await expect(open()).rejects.toMatchObject({
      code: 'REPOSITORY_NOT_ONE',
      message: expect.stringContaining('holiday.jpg') as string,
    });
    expect(await readdir(folder)).toEqual(['holiday.jpg']);
  });

  test('that is a file is refused', async () => {
    await mkdir(join(root, 'deep'));
    await writeFile(folder, '');
    await expect(open()).rejects.toMatchObject({ code: 'REPOSITORY_NOT_ONE' });
    folder = join(folder, 'below');
    await expect(open()).rejects.toMatchObject({ code: 'REPOSITORY_NOT_ONE' });
  });

  test('of another repository is refused, naming both', async () => {
    await open();
    await shut();
    await expect(open('other')).rejects.toMatchObject({
      code: 'REPOSITORY_NOT_ONE',
      message: expect.stringMatching(/main.*other/) as string,
    });
    await open();
  });

  test.each([
    ['newer', '{"format":7,"features":{"must":[],"may":[]}}', 'REPOSITORY_NEWER'],
    ['with a feature not known', '{"format":1,"features":{"must":["shards"],"may":[]}}', 'REPOSITORY_NEWER'],
    ['of format 0', '{"format":0,"features":{"must":[],"may":[]}}', 'REPOSITORY_OLDER'],
    ['damaged', '{"format":1,', 'REPOSITORY_CORRUPT'],
  ])('%s is refused and left alone', async (_, text, code) => {
    await mkdir(folder, { recursive: true });
    await writeFile(repositoryJson(), text);
    await expect(open()).rejects.toMatchObject({ code, message: expect.stringContaining('repository.json') as string });
    expect(await readdir(folder)).toEqual(['repository.json']);
  });
});

describe('one owner', () => {
  const owner = async (): Promise<ChildProcess> => {
    const entry = new URL('../../tests/fixtures/repository/owner-process.ts', import.meta.url).pathname;
    const child = spawn(process.execPath, [entry, folder, join(root, 'index2')], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(child.stdout, 'data');
    return child;
  };

  test('another process is named; when it is killed the folder is free at once', async () => {
    const child = await owner();
    try {
      await expect(open()).rejects.toMatchObject({
        code: 'REPOSITORY_IN_USE',
        message: expect.stringContaining(`process ${child.pid} `) as string,
        details: { pid: child.pid },
      });
      expect(await readFile(join(folder, 'lock.owner'), 'utf8')).toBe(`${child.pid}\n`);
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    await open();
  });

  test('this process twice is refused as well, and the first goes on', async () => {
    const first = await open();
    await expect(open()).rejects.toMatchObject({ code: 'REPOSITORY_IN_USE', details: { pid: process.pid } });
    expect(first.listOpen()).toEqual([]);
    await shut();
    await open();
  });

  test('a folder that cannot be opened further is given free', async () => {
    await open();
    await shut();
    await rm(join(folder, 'open'), { recursive: true });
    await writeFile(join(folder, 'open'), '');
    await expect(open()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    await rm(join(folder, 'open'));
    await open();
  });

  test('a lock that cannot be written is an error naming it', async () => {
    await open();
    await shut();
    await rm(join(folder, 'lock'));
    await mkdir(join(folder, 'lock'));
    await expect(open()).rejects.toMatchObject({
      code: 'STORAGE_ERROR',
      message: expect.stringContaining('lock') as string,
    });
  });
});

test('a closed repository takes no more verbs', async () => {
  const repository = await open();
  await shut();
  await expect(repository.abort({ restorePointId: null, run: 'abcdef012345' as never })).rejects.toMatchObject({
    code: 'HOST_DRAINING',
  });
});

test('packs of map pages that nobody reads any more are closed, and opened again when somebody does', async () => {
  const clock = new SetClock();
  const world = await createTestRepository({ clock, open: { idlePackMs: 1000 } });
  const { sealedFull } = verbsOf(() => world);
  const held = (): Promise<string[]> => openFilesIn(join(world.folder, 'meta'));
  try {
    const disk = diskOf(3);
    const { restorePointId } = await sealedFull(1, disk);
    for (let time = 0; time < 2; time += 1) {
      // Else its pages are in memory.
      await world.reopen();
      expect((await handRestore(world, restorePointId, DISK)).equals(disk)).toBe(true);
      expect(await held()).toHaveLength(1);
      await clock.pass(1000);
      expect(await held()).toEqual([]);
    }
    const other = diskOf(4, 'b');
    const { restorePointId: next } = await sealedFull(2, other);
    expect((await handRestore(world, next, DISK)).equals(other)).toBe(true);
  } finally {
    await world.close();
  }
});

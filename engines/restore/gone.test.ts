/** What becomes of a restore whose folder loses what was in it: a mount that does not come back, somebody who clears up. */
import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  appendFile,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  rename,
  rm,
  truncate,
  unlink,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { diskKey, runKey } from '../../schema/domain/ids.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openWriter } from './open-writer.ts';
import { createTargets, discardTargets, finishTargets, type TargetRequest } from './targets.ts';

/** Of its own: what a run left is looked for on the whole machine. */
const run = runKey(randomBytes(6).toString('hex'));
const sizeBytes = 1024 * 1024 + 1000;
const disks = ['d0', 'd1'].map((key) => ({ diskKey: diskKey(key), sizeBytes, name: `${key}.img` }));
let root: string;
let folder: string;
beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'td-gone-'));
  folder = path.join(root, 'out');
});
afterEach(async () => {
  await discardTargets({ run, folder });
  await rm(root, { recursive: true, force: true });
});

const formats = ['raw', 'qcow2'] as const;
const emptyFolder = async (): Promise<void> => {
  await rm(folder, { recursive: true });
  await mkdir(folder);
};
const visible = async (): Promise<string[]> => (await readdir(folder)).filter((name) => !name.startsWith('.')).sort();

describe.each(formats)('as %s', (format) => {
  const request = (): TargetRequest => ({ run, folder, allowedFolders: [root], format, disks });
  const finish = () => finishTargets({ run, folder, made: { format, disks } });
  const isGone = (named: string) => ({
    code: 'STORAGE_ERROR',
    message: expect.stringMatching(new RegExp(`${named.replaceAll('.', '\\.')} is gone: see whether .* is mounted`)),
  });

  test('what was begun is taken up, never made anew', async () => {
    const made = await createTargets(request());
    expect(await createTargets({ ...request(), begun: true })).toEqual(made);
    // One disk is done; its file goes, and the other is tried again.
    await unlink(path.join(folder, 'd0.img.partial'));
    await expect(createTargets({ ...request(), begun: true })).rejects.toMatchObject(isGone('d0.img.partial'));
    expect(await visible()).toEqual(['d1.img.partial']);
    await expect(finish()).rejects.toMatchObject(isGone('d0.img'));
    expect(await visible()).toEqual(['d1.img.partial']);
  });

  test('a folder that was emptied, or is not there, is not begun again', async () => {
    await createTargets(request());
    const aside = path.join(root, 'aside');
    await rename(folder, aside);
    await expect(createTargets({ ...request(), begun: true })).rejects.toMatchObject(isGone(folder));
    await expect(finish()).rejects.toMatchObject(isGone(folder));
    expect(await readdir(root)).toEqual(['aside']);
    await mkdir(folder);
    await expect(createTargets({ ...request(), begun: true })).rejects.toMatchObject(isGone(`folder ${folder}`));
    await expect(finish()).rejects.toMatchObject(isGone('d0.img'));
    expect(await readdir(folder)).toEqual([]);
    await rm(folder, { recursive: true });
    await rename(aside, folder);
    expect(await createTargets({ ...request(), begun: true })).toHaveLength(2);
  });

  test('a finish that is repeated names the files that are there, whole', async () => {
    await createTargets(request());
    const finished = await finish();
    expect(finished).toEqual(disks.map((disk) => ({ diskKey: disk.diskKey, file: path.join(folder, disk.name) })));
    expect(await finish()).toEqual(finished);
    // A workflow of the version before does not say what was made.
    expect(await finishTargets({ run, folder })).toEqual([]);
    await unlink(finished[1]!.file);
    await expect(finish()).rejects.toMatchObject(isGone('d1.img'));
    await writeFile(finished[1]!.file, 'this is no disk');
    await expect(finish()).rejects.toMatchObject({
      code: 'STORAGE_ERROR',
      message: expect.stringContaining(finished[1]!.file),
    });
    const other = 2 * 1024 * 1024;
    if (format === 'raw') await truncate(finished[1]!.file, other);
    else execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', finished[1]!.file, String(other)]);
    await expect(finish()).rejects.toMatchObject({ message: expect.stringMatching(/d1\.img .* not of 2097152$/) });
    await emptyFolder();
    await expect(finish()).rejects.toMatchObject(isGone('d0.img'));
  });

  test('a finish that was killed between two files goes on, but not with what others put there', async () => {
    await createTargets(request());
    const [partial, file] = ['d0.img.partial', 'd0.img'].map((name) => path.join(folder, name)) as [string, string];
    await rename(partial, file);
    await appendFile(file, 'more');
    if (format === 'raw') {
      await expect(finish()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
      expect(await visible()).toEqual(['d0.img', 'd1.img.partial']);
      await truncate(file, sizeBytes);
    }
    expect(await finish()).toHaveLength(2);
    expect(await visible()).toEqual(['d0.img', 'd1.img']);
  });
});

test('a disk that writes on into a file that is gone is not delivered', async () => {
  const request: TargetRequest = { run, folder, allowedFolders: [root], format: 'raw', disks };
  const made = await createTargets(request);
  const writer = await openWriter(made[0]!, testSeams());
  await emptyFolder();
  await writer.write(0, Buffer.alloc(1000, 1), new AbortController().signal);
  await writer.flush();
  await writer.close();
  await expect(createTargets({ ...request, begun: true })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  await expect(finishTargets({ run, folder, made: request })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  expect(await readdir(folder)).toEqual([]);
});

test('a state that was lost alone does not make other files of those that are there', async () => {
  const request: TargetRequest = { run, folder, allowedFolders: [root], format: 'raw', disks };
  const [made] = await createTargets(request);
  await writeFile((made!.data as { path: string }).path, 'disk');
  await unlink(path.join(folder, `.tidemark-restore-${run}.json`));
  await expect(createTargets({ ...request, begun: true })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  await expect(finishTargets({ run, folder, made: request })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  expect(await readFile((made!.data as { path: string }).path, 'utf8')).toBe('disk');
});

test('what serves images whose folder went away ends when the restore is given up', async () => {
  const request: TargetRequest = { run, folder, allowedFolders: [root], format: 'qcow2', disks };
  const made = await createTargets(request);
  const sockets = made.map(({ data }) => (data.via === 'nbd' && 'unix' in data.at ? data.at.unix : 'none'));
  const serving = async (): Promise<string[]> => {
    const lines = (await readdir('/proc')).map((name) => readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => ''));
    return (await Promise.all(lines)).filter((line) => sockets.some((socket) => line.includes(socket)));
  };
  expect(await serving()).toHaveLength(2);
  await rm(folder, { recursive: true });
  await discardTargets({ run, folder });
  expect(await serving()).toEqual([]);
  expect((await readdir(os.tmpdir())).filter((name) => name.includes(run))).toEqual([]);
});

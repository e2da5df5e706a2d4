import { execFileSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import {
  mkdir,
  mkdtemp,
  open,
  readdir,
  readFile,
  rename,
  rm,
  stat,
  symlink,
  unlink,
  writeFile,
} from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, onTestFinished, test } from 'vitest';
import type { TidemarkError } from '../../schema/domain/errors.ts';
import { diskKey, runKey } from '../../schema/domain/ids.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { mountSmallDisk, whyNoSmallDisk } from '../../tests/fixtures/small-disk.ts';
import { moveExclusively } from './files.ts';
import { openWriter } from './open-writer.ts';
import { endDaemon } from './qcow2-daemon.ts';
import { createTargets, discardTargets, finishTargets, type TargetFormat } from './targets.ts';

const noSmallDisk = whyNoSmallDisk();
if (noSmallDisk !== null) console.warn(`NOT TESTED, a full disk: ${noSmallDisk}`);
/** Of its own: what a run left is looked for on the whole machine. */
const run = runKey(randomBytes(6).toString('hex'));
const disk = diskKey('d0');
const signal = new AbortController().signal;
let root: string;
beforeEach(async () => {
  root = await mkdtemp(path.join(os.tmpdir(), 'td-r-'));
});
afterEach(async () => {
  await discardTargets({ run, folder: path.join(root, 'out') });
  await rm(root, { recursive: true, force: true });
});
const request = (format: TargetFormat, sizeBytes: number) => ({
  run,
  folder: path.join(root, 'out'),
  allowedFolders: [root],
  format,
  disks: [{ diskKey: disk, sizeBytes, name: 'disk.img' }],
});

test.each(['raw', 'qcow2'] as const)('a %s target is partial until finished, and may be made again', async (format) => {
  const sizeBytes = 8 * 1024 * 1024 + 512;
  await createTargets(request(format, sizeBytes));
  const [target] = await createTargets(request(format, sizeBytes));
  const writer = await openWriter(target!, testSeams());
  await writer.zero({ offset: 0, length: 4096 }, signal);
  await writer.write(5 * 1024 * 1024, Buffer.alloc(4096, 'tide'), signal);
  await writer.write(sizeBytes - 512, Buffer.alloc(512, 7), signal);
  await writer.flush();
  await writer.close();
  expect(await readdir(path.join(root, 'out'))).not.toContain('disk.img');
  const file = path.join(root, 'out', 'disk.img');
  expect(await finishTargets({ run, folder: path.join(root, 'out') })).toEqual([{ diskKey: disk, file }]);
  expect(await readdir(path.join(root, 'out'))).toEqual(['disk.img']);
  const raw = path.join(root, 'raw');
  execFileSync('qemu-img', ['convert', '-f', format, '-O', 'raw', file, raw]);
  const expected = Buffer.alloc(sizeBytes);
  expected.fill('tide', 5 * 1024 * 1024, 5 * 1024 * 1024 + 4096).fill(7, sizeBytes - 512);
  expect((await readFile(raw)).equals(expected)).toBe(true);
  if (format === 'raw') expect((await stat(file)).blocks * 512).toBeLessThan(sizeBytes / 4);
});

test('an existing file is never touched, a folder outside is refused, also through a link', async () => {
  await mkdir(path.join(root, 'out'));
  await writeFile(path.join(root, 'out', 'disk.img'), 'mine');
  await expect(createTargets(request('raw', 1000))).rejects.toMatchObject({ code: 'TARGET_EXISTS' });
  expect(await readFile(path.join(root, 'out', 'disk.img'), 'utf8')).toBe('mine');
  const outside = await mkdtemp(path.join(os.tmpdir(), 'td-r-outside-'));
  await symlink(outside, path.join(root, 'link'));
  const linked = { ...request('raw', 1000), folder: path.join(root, 'link') };
  await expect(createTargets(linked)).rejects.toMatchObject({ code: 'TARGET_NOT_ALLOWED' });
  expect(await readdir(outside)).toEqual([]);
  await rm(outside, { recursive: true });
});

test.each(['raw', 'qcow2'] as const)('discard removes what the run made (%s), twice is fine', async (format) => {
  await createTargets(request(format, 0));
  await discardTargets({ run, folder: path.join(root, 'out') });
  await discardTargets({ run, folder: path.join(root, 'out') });
  expect(await readdir(path.join(root, 'out'))).toEqual([]);
});

const outFolder = (): string => path.join(root, 'out');
const other = runKey('zyxwvutsrq98');

test('two runs never write the same file, however close they begin', async () => {
  const both = [request('raw', 1000), { ...request('raw', 1000), run: other }];
  const made = await Promise.allSettled(both.map((one) => createTargets(one)));
  expect(made.filter(({ status }) => status === 'fulfilled').length).toBeLessThanOrEqual(1);
  for (const one of made) if (one.status === 'rejected') expect(one.reason).toMatchObject({ code: 'TARGET_EXISTS' });
  await discardTargets({ run: other, folder: outFolder() });
  await discardTargets({ run, folder: outFolder() });
  expect(await readdir(outFolder())).toEqual([]);
});

test('a run that was killed before it had its names removes nothing of another', async () => {
  await createTargets(request('raw', 1000));
  const claim = { run: other, format: 'raw', disks: request('raw', 1000).disks, claimed: false, socketFolder: null };
  await writeFile(path.join(outFolder(), `.tidemark-restore-${other}.json`), JSON.stringify(claim));
  await expect(createTargets({ ...request('raw', 1000), run: other })).rejects.toMatchObject({ code: 'TARGET_EXISTS' });
  await discardTargets({ run: other, folder: outFolder() });
  expect(await readdir(outFolder())).toContain('disk.img.partial');
  await createTargets(request('raw', 1000));
});

test('a partial file that went away is made anew, and restored from its beginning', async () => {
  const [target] = await createTargets(request('raw', 4096));
  await writeFile(target!.cursorFile, '{}');
  await unlink(path.join(outFolder(), 'disk.img.partial'));
  await createTargets(request('raw', 4096));
  expect(await readdir(outFolder())).not.toContain(path.basename(target!.cursorFile));
});

test('an allowed folder that is not there is told from one that is not allowed', async () => {
  const [away, folder] = [path.join(root, 'nas'), path.join(root, 'nas/deep')];
  const asked = (allowedFolders: string[]) => createTargets({ ...request('raw', 1000), folder, allowedFolders });
  await expect(asked([away])).rejects.toMatchObject({
    code: 'STORAGE_ERROR',
    message: expect.stringContaining(`allowed folder ${away} is gone: see whether its file system is mounted`),
  });
  expect(existsSync(away)).toBe(false);
  // Allowed by another one, too.
  expect(await asked([away, root])).toHaveLength(1);
  await discardTargets({ run, folder });
});

test('links lead nowhere: not a partial name, not a final one, not a folder', async () => {
  const outside = await mkdtemp(path.join(os.tmpdir(), 'td-r-outside-'));
  await mkdir(outFolder());
  for (const name of ['disk.img', 'disk.img.partial']) {
    await symlink(path.join(outside, 'prey'), path.join(outFolder(), name));
    await expect(createTargets(request('raw', 1000))).rejects.toMatchObject({ code: 'TARGET_EXISTS' });
    await unlink(path.join(outFolder(), name));
  }
  await symlink(path.join(outside, 'not-there'), path.join(root, 'dangling'));
  for (const folder of [path.join(root, 'dangling'), `${root}/out/../../x`, `${root}/dangling/x`, 'out', outside]) {
    const refused = createTargets({ ...request('raw', 1000), folder });
    await expect(refused).rejects.toMatchObject({ code: 'TARGET_NOT_ALLOWED' });
  }
  await symlink(outside, path.join(root, 'side'));
  await createTargets({ ...request('raw', 1000), folder: `${root}/side/../deep/er` });
  expect(await readdir(outside)).toEqual([]);
  expect(await readdir(path.join(root, 'deep/er'))).toContain('disk.img.partial');
  await rm(outside, { recursive: true });
});

test.each(['', '.', '..', '../x', 'a/b', '.hidden', 'x.partial', 'x'.repeat(250), 'a\0b'])(
  'a file named %j is refused',
  async (name) => {
    const disks = [{ diskKey: disk, sizeBytes: 1, name }];
    await expect(createTargets({ ...request('raw', 1), disks })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
  },
);

test('two disks do not share a file', async () => {
  const disks = [disk, diskKey('d1')].map((key) => ({ diskKey: key, sizeBytes: 1, name: 'same' }));
  await expect(createTargets({ ...request('raw', 1), disks })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
});

test('a name taken meanwhile is not overwritten; a move cut off half-way is ended', async () => {
  await createTargets(request('raw', 1000));
  const file = path.join(outFolder(), 'disk.img');
  await writeFile(file, 'mine');
  await expect(finishTargets({ run, folder: outFolder() })).rejects.toMatchObject({ code: 'TARGET_EXISTS' });
  expect(await readFile(file, 'utf8')).toBe('mine');
  await unlink(file);
  execFileSync('ln', [`${file}.partial`, file]);
  expect(await finishTargets({ run, folder: outFolder() })).toEqual([{ diskKey: disk, file }]);
  expect(await readdir(outFolder())).toEqual(['disk.img']);
});

test('a finished file that went away is not called finished', async () => {
  await createTargets(request('raw', 1000));
  await unlink(path.join(outFolder(), 'disk.img.partial'));
  await expect(finishTargets({ run, folder: outFolder() })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
});

test('what the system refuses names the file; a full disk is the storage it is', async () => {
  await writeFile(path.join(root, 'file'), '');
  const folder = path.join(root, 'file', 'x');
  await expect(createTargets({ ...request('raw', 1), folder })).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
  const access = {
    run,
    diskKey: disk,
    sizeBytes: 10,
    cursorFile: '',
    data: { via: 'file', path: '/dev/full' } as const,
  };
  const writer = await openWriter(access, testSeams());
  const message = expect.stringMatching(/\/dev\/full.*ENOSPC/);
  await expect(writer.write(0, Buffer.alloc(10), signal)).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
  await writer.close();
});

describe('qcow2', () => {
  const daemons = (): string[] =>
    readdirSync('/proc').filter((name) => {
      if (!/^\d+$/.test(name) || !existsSync(`/proc/${name}/cmdline`)) return false;
      const [program, ...args] = readFileSync(`/proc/${name}/cmdline`, 'utf8').split('\0');
      return program === 'qemu-storage-daemon' && args.some((arg) => arg.includes(root));
    });

  test('a folder of any length and with commas will do', async () => {
    const folder = path.join(root, 'out, with commas'.repeat(5));
    const [target] = await createTargets({ ...request('qcow2', 4096), folder });
    await (await openWriter(target!, testSeams())).close();
    await discardTargets({ run, folder });
    expect(await readdir(folder)).toEqual([]);
  });

  test('an image whose making was cut off is made again; a daemon that nobody wrote down is found', async () => {
    await createTargets(request('qcow2', 4096));
    const state = path.join(outFolder(), `.tidemark-restore-${run}.json`);
    const { socketFolder } = JSON.parse(await readFile(state, 'utf8')) as { socketFolder: string };
    await endDaemon(path.join(socketFolder, '0.sock'));
    const file = path.join(outFolder(), 'disk.img.partial');
    await rename(file, path.join(outFolder(), `.tidemark-restore-${run}-0.making`));
    execFileSync('truncate', ['-s', '100', path.join(outFolder(), `.tidemark-restore-${run}-0.making`)]);
    await createTargets(request('qcow2', 4096));
    // Its socket is swept away, and the folder: it holds the image all the same.
    await rm(socketFolder, { recursive: true });
    const [target] = await createTargets(request('qcow2', 4096));
    await (await openWriter(target!, testSeams())).close();
    expect(daemons()).toHaveLength(1);
    await discardTargets({ run, folder: outFolder() });
    expect(daemons()).toEqual([]);
    expect(await readdir(outFolder())).toEqual([]);
  });

  test('an image that cannot be served says why', async () => {
    await mkdir(outFolder());
    const claim = { run, format: 'qcow2', disks: request('qcow2', 1).disks, claimed: true, socketFolder: null };
    await writeFile(path.join(outFolder(), `.tidemark-restore-${run}.json`), JSON.stringify(claim));
    const file = path.join(outFolder(), 'disk.img.partial');
    await writeFile(file, 'this is no image');
    const message = expect.stringContaining(file);
    await expect(createTargets(request('qcow2', 1))).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
  });

  test.skipIf(noSmallDisk !== null)('a full disk is told as such', async () => {
    const { folder, remove } = mountSmallDisk(2)!;
    onTestFinished(remove);
    const small = { ...request('qcow2', 64 * 1024 * 1024), folder, allowedFolders: [folder] };
    const [target] = await createTargets(small);
    const writer = await openWriter(target!, testSeams());
    const write = writer.write(0, Buffer.alloc(8 * 1024 * 1024, 7), signal);
    const message = expect.stringContaining('ENOSPC');
    await expect(write).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
    await writer.close();
    await discardTargets({ run, folder });
    expect(readdirSync(folder)).toEqual([]);
  });
});

test('a storage that hangs at the very end is told, and what hung is ended by another try', async () => {
  const [target] = await createTargets(request('raw', 1000));
  const { path: partial } = target!.data as { path: string };
  await rename(partial, `${partial}.aside`);
  // What opens it for reading waits until somebody writes.
  execFileSync('mkfifo', [partial]);
  const of = { run, folder: path.join(root, 'out') };
  await expect(finishTargets(of, 300)).rejects.toMatchObject({
    code: 'UNREACHABLE',
    message: `restore target ${partial}: its storage has not answered for 0.3 s`,
  });
  await (await open(partial, 'w')).close();
  await rename(`${partial}.aside`, partial);
  expect(await finishTargets(of)).toEqual([{ diskKey: disk, file: path.join(root, 'out', 'disk.img') }]);
});

test('two tries that name a file at once, since one hung, both see it as theirs', async () => {
  const codes: unknown[] = [];
  for (let round = 0; round < 30; round += 1) {
    const [from, to] = [path.join(root, `from${round}`), path.join(root, `to${round}`)];
    await writeFile(from, 'disk');
    const tries = await Promise.allSettled([moveExclusively(from, to), moveExclusively(from, to)]);
    for (const each of tries) if (each.status === 'rejected') codes.push((each.reason as TidemarkError).code);
    expect(await readFile(to, 'utf8')).toBe('disk');
    await moveExclusively(from, to);
  }
  // One that comes too late to link may fail: the next try finds the file named.
  expect(codes.filter((code) => code !== 'STORAGE_ERROR')).toEqual([]);
});

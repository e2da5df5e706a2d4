import { execFileSync } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { diskKey, runKey } from '../../schema/domain/ids.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openWriter } from './open-writer.ts';
import { createTargets, discardTargets, finishTargets, type TargetFormat } from './targets.ts';

const run = runKey('abcdef012345');
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

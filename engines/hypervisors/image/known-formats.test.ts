import { execFileSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { formatFoundIn } from './known-formats.ts';

let folder: string;
beforeAll(async () => void (folder = await mkdtemp(join(tmpdir(), 'td-formats-'))));
afterAll(() => rm(folder, { recursive: true }));

const qemuImg = (...words: string[]): string => execFileSync('qemu-img', words, { encoding: 'utf8' });

test.each(['qcow', 'qcow2', 'qed', 'vmdk', 'vhdx', 'vpc', 'vdi', 'parallels'])('%s is found', async (format) => {
  const file = join(folder, `image.${format}`);
  qemuImg('create', '-q', '-f', format, file, '8M');
  expect(JSON.parse(qemuImg('info', '--output=json', file))).toMatchObject({ format });
  expect(await formatFoundIn(file)).toBe(format);
});

test('a VMDK that is a description alone is found', async () => {
  const file = join(folder, 'flat.vmdk');
  qemuImg('create', '-q', '-f', 'vmdk', '-o', 'subformat=monolithicFlat', file, '8M');
  expect(await formatFoundIn(file)).toBe('vmdk');
});

test.each([
  ['no bytes', ''],
  ['fewer bytes than a magic has', 'QFI'],
  ['a partition table', Buffer.concat([Buffer.alloc(510), Buffer.from([0x55, 0xaa])])],
  ['a disk that its guest has encrypted', Buffer.from('LUKS\u00ba\u00be\0\u0002', 'latin1')],
  ['a name further on', Buffer.from('xQFI\u00fb', 'latin1')],
])('%s is raw', async (_what, content) => {
  const file = join(folder, 'disk.raw');
  await writeFile(file, content);
  expect(await formatFoundIn(file)).toBe(null);
});

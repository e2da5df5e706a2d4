import { beforeEach, expect, test } from 'vitest';
import type { DamagedLine } from '../../../schema/repository/checked-lines.ts';
import { FaultyDisk } from '../../../tests/fixtures/repository/faulty-disk.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { openStorage } from '../storage/storage.ts';
import { openDamageList, type DamageList } from './damage-list.ts';

const { log } = testSeams();
const PATH = '/r/damaged';
let disk: FaultyDisk;
beforeEach(async () => {
  disk = new FaultyDisk();
  await stagingOf().prepare();
});

const stagingOf = () => openStorage({ kind: 'folder', folder: '/r' }, disk.fileSystem).staging;
const open = (): Promise<DamageList> => openDamageList({ staging: stagingOf(), log });
const lineOf = (offset: number | null, pack = 'a'): DamagedLine => ({
  kind: offset === null ? 'pack' : 'record',
  pack: pack.repeat(32),
  offset,
  id: offset === null ? null : '0f'.repeat(32),
  why: 'its payload is damaged',
  foundAt: '2026-11-24T16:00:00.000Z',
});
const linesOf = async (): Promise<DamagedLine[]> => [...(await open()).lines()];

test('what was settled is there after a crash, once', async () => {
  const list = await open();
  expect([lineOf(64), lineOf(null), lineOf(64)].map((line) => list.add(line))).toEqual([true, true, false]);
  await list.settle();
  expect([...list.linesOf('a'.repeat(32))]).toEqual([lineOf(64), lineOf(null)]);
  list.add(lineOf(900));
  disk = disk.afterCrash('nothing');
  expect(await linesOf()).toEqual([lineOf(64), lineOf(null)]);
  expect((await open()).add(lineOf(64))).toBe(false);
});

test('a torn end is cut, a damaged line is passed over; what is added then is whole', async () => {
  const list = await open();
  for (const offset of [1, 2, 3]) list.add(lineOf(offset));
  await list.close();
  disk.tamper(PATH, (content) => Buffer.from(content.toString().replace('"offset":2', '"offset":7')).subarray(0, -20));
  const again = await open();
  expect([...again.lines()]).toEqual([lineOf(1)]);
  again.add(lineOf(4));
  await again.close();
  expect(await linesOf()).toEqual([lineOf(1), lineOf(4)]);
});

test('an end that cannot be read is left out', async () => {
  const list = await open();
  list.add(lineOf(1));
  await list.close();
  disk.fail({ call: 'read', what: 'EIO', path: /damaged/, times: 1 });
  const again = await open();
  expect([...again.lines()]).toEqual([]);
  again.add(lineOf(2));
  await again.close();
  expect(await linesOf()).toEqual([lineOf(2)]);
});

test.each(['write', 'sync'] as const)('what a failed %s kept from disk is written with the next', async (call) => {
  const list = await open();
  disk.fail({ call, what: 'ENOSPC', path: /damaged/, times: 1 });
  list.add(lineOf(1));
  await expect(list.settle()).rejects.toMatchObject({ code: 'REPOSITORY_FULL' });
  list.add(lineOf(2));
  await list.settle();
  disk = disk.afterCrash('nothing');
  expect(await linesOf()).toEqual([lineOf(1), lineOf(2)]);
});

test('lines that are sifted out do not come back', async () => {
  const list = await open();
  for (const pack of ['a', 'b']) list.add(lineOf(1, pack));
  await list.sift(({ pack }) => pack.startsWith('b'));
  list.add(lineOf(2, 'c'));
  await list.settle();
  disk = disk.afterCrash('nothing');
  expect(await linesOf()).toEqual([lineOf(1, 'b'), lineOf(2, 'c')]);
});

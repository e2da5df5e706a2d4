/** Marks are durable when they were set, whoever wrote them first. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { diskKey, restorePointId } from '../../../schema/domain/ids.ts';
import { openVault } from '../../../schema/repository/vault.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { aroundCalls } from '../storage/around-calls.ts';
import { layout } from '../storage/layout.ts';
import { openStorage } from '../storage/storage.ts';
import { loadMarks } from './marks.ts';

const id = restorePointId('a'.repeat(32));
const why = { code: 'TORN', message: 'a record is torn' };
const { log, random } = testSeams();
let folder: string;
let written: number;
let fails: boolean;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidemark-marks-'));
  [written, fails] = [0, false];
});
afterEach(() => rm(folder, { recursive: true, force: true }));

function load() {
  const storage = aroundCalls(openStorage({ kind: 'folder', folder }), {
    async: async (call, go) => {
      const done = await go();
      if (call.operation !== 'replace') return done;
      written += 1;
      // It is there for whoever reads, and may not be after a power cut.
      if (fails) throw new Error('the folder was not synced');
      return done;
    },
    sync: (_, go) => go(),
  });
  return loadMarks({ storage, vault: openVault(null, random) }, log);
}

test('a mark that was only read is written again by whoever counts on it, once', async () => {
  fails = true;
  await expect((await load()).set(id, 'damaged', why, '2026-11-25T00:00:00.000Z')).rejects.toThrow('not synced');
  fails = false;
  const marks = await load();
  expect(marks.of(id)).toMatchObject({ state: 'damaged', why });
  for (let times = 0; times < 3; times += 1) await marks.set(id, 'damaged', why, '2026-11-26T00:00:00.000Z');
  expect(written).toBe(2);
  expect((await load()).of(id)).toMatchObject({ since: '2026-11-25T00:00:00.000Z' });
});

test('a disk whose tracking is distrusted stays so, beside marks that come and go, and where its file is damaged', async () => {
  const disk = diskKey('d1');
  await (await load()).distrust(id, disk);
  const marks = await load();
  expect([marks.isDistrusted(id, disk), marks.isDistrusted(id, diskKey('d2')), marks.of(id)]).toEqual([
    true,
    false,
    null,
  ]);
  await marks.set(id, 'damaged', why, '2026-11-25T00:00:00.000Z');
  await marks.clear(id, 'damaged');
  expect((await load()).isDistrusted(id, disk)).toBe(true);
  await writeFile(join(folder, layout.mark(id)), '{}');
  expect((await load()).isDistrusted(id, disk)).toBe(true);
  await marks.forget(id);
  expect([marks.isDistrusted(id, disk), (await load()).isDistrusted(id, disk)]).toEqual([false, false]);
});

test('a mark whose write failed is written again when it is set again', async () => {
  const marks = await load();
  await marks.set(id, 'damaged', why, '2026-11-25T00:00:00.000Z');
  fails = true;
  const other = { ...why, message: 'another' };
  await expect(marks.set(id, 'damaged', other, '2026-11-26T00:00:00.000Z')).rejects.toThrow('not synced');
  fails = false;
  await marks.set(id, 'damaged', why, '2026-11-26T00:00:00.000Z');
  expect(written).toBe(3);
  expect((await load()).of(id)).toMatchObject({ why });
});

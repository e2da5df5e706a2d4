import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { diskKey, restorePointId } from '../../../schema/domain/ids.ts';
import type { DiskWriter } from '../../../schema/domain/seams.ts';
import { deferred, type Deferred } from '../waiting.ts';
import { readCursor } from './cursor-file.ts';
import { createFlushBehind } from './flush-behind.ts';

const of = { restorePointId: restorePointId('0'.repeat(32)), diskKey: diskKey('d0'), sizeBytes: 4711 };
let folder: string;
let cursorFile: string;
/** Of each flush begun: to let it end. */
let flushes: Deferred<void>[];
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), 'td-flush-'));
  cursorFile = path.join(folder, 'cursor');
  flushes = [];
});
afterEach(() => rm(folder, { recursive: true }));

const writer: DiskWriter = {
  sizeBytes: of.sizeBytes,
  write: async () => undefined,
  zero: async () => undefined,
  flush: () => {
    flushes.push(deferred<void>());
    return flushes.at(-1)!.promise;
  },
  close: async () => undefined,
};

test('a flush holds up nobody but the next one; the cursor is written after it', async () => {
  const behind = createFlushBehind(writer, cursorFile);
  await behind.begin({ ...of, windowsDone: 4 });
  const second = behind.begin({ ...of, windowsDone: 8 });
  expect(flushes).toHaveLength(1);
  expect(await readCursor(cursorFile, of)).toBe(0);
  flushes[0]!.resolve();
  await second;
  expect(flushes).toHaveLength(2);
  expect(await readCursor(cursorFile, of)).toBe(4);
  flushes[1]!.resolve();
  await behind.idle();
  expect(await readCursor(cursorFile, of)).toBe(8);
});

test('a flush that fails writes no cursor, and is told by whatever comes next', async () => {
  const behind = createFlushBehind(writer, cursorFile);
  await behind.begin({ ...of, windowsDone: 4 });
  flushes[0]!.reject(new Error('the disk is gone'));
  await behind.settled();
  await expect(behind.begin({ ...of, windowsDone: 8 })).rejects.toThrow('the disk is gone');
  await expect(behind.idle()).rejects.toThrow('the disk is gone');
  expect(flushes).toHaveLength(1);
  expect(await readCursor(cursorFile, of)).toBe(0);
});

import { beforeEach, expect, test } from 'vitest';
import { deferred, type Deferred } from '../waiting.ts';
import { createFlushBehind, type FlushBehind } from './flush-behind.ts';

const MIB = 1024 * 1024;
/** Of each flush begun: to let it end. */
let flushes: Deferred<void>[];
let durable: number[][];
let behind: FlushBehind;
beforeEach(() => {
  flushes = [];
  durable = [];
  const flush = (): Promise<void> => {
    flushes.push(deferred<void>());
    return flushes.at(-1)!.promise;
  };
  behind = createFlushBehind(flush, (windows) => durable.push(windows));
});

test('a flush holds up nobody, and what was written meanwhile waits for the next', async () => {
  await behind.finished(7);
  await behind.finished(8);
  await behind.finished(9);
  expect(flushes).toHaveLength(1);
  expect(durable).toEqual([]);
  flushes[0]!.resolve();
  await expect.poll(() => durable).toEqual([[7]]);
  expect(flushes).toHaveLength(2);
  flushes[1]!.resolve();
  await behind.idle();
  expect(durable).toEqual([[7], [8, 9]]);
});

test('a disk that is slow holds up whoever writes to it', async () => {
  for (let window = 0; window < 4; window += 1) await behind.finished(window);
  let isHeldUp = true;
  const fifth = behind.finished(4).then(() => (isHeldUp = false));
  flushes[0]!.resolve();
  await expect.poll(() => flushes.length).toBe(2);
  expect(isHeldUp).toBe(true);
  flushes[1]!.resolve();
  await fifth;
  expect(durable).toEqual([[0], [1, 2, 3, 4]]);
});

test('a flush that fails makes nothing durable, and is told by whatever comes next', async () => {
  await behind.finished(0);
  flushes[0]!.reject(new Error('the disk is gone'));
  await expect(behind.idle()).rejects.toThrow('the disk is gone');
  await expect(behind.finished(1)).rejects.toThrow('the disk is gone');
  await expect(behind.idle()).rejects.toThrow('the disk is gone');
  expect(flushes).toHaveLength(1);
  expect(durable).toEqual([]);
});

test('the disk has work before a window is finished; what is finished meanwhile is durable with the next flush', async () => {
  behind.wrote(31 * MIB);
  expect(flushes).toHaveLength(0);
  behind.wrote(MIB);
  expect(flushes).toHaveLength(1);
  await behind.finished(7);
  flushes[0]!.resolve();
  await expect.poll(() => flushes.length).toBe(2);
  expect(durable).toEqual([]);
  flushes[1]!.resolve();
  await behind.idle();
  expect(durable).toEqual([[7]]);
});

import { expect, test } from 'vitest';
import { TokenBucket } from './token-bucket.ts';

const isPending = async (work: Promise<void>): Promise<boolean> => {
  let isOver = false;
  void work.then(() => (isOver = true));
  for (let turn = 0; turn < 5; turn += 1) await Promise.resolve();
  return !isOver;
};

test('saves up a quarter of a second and no more; what is lent is paid back', async () => {
  let nowMs = 0;
  const bucket = new TokenBucket(() => nowMs);
  bucket.rate = 1000;
  expect(bucket.isEmpty).toBe(true);
  nowMs = 60_000;
  await bucket.take(200);
  await bucket.take(50);
  expect(bucket.isEmpty).toBe(true);
  nowMs += 250;
  // More than ever fits: granted when full, and the next one waits the longer.
  await bucket.take(1000);
  const next = bucket.take(1);
  expect(await isPending(next)).toBe(true);
  nowMs += 760;
  // Another rate wakes who waits: it is looked at again.
  bucket.rate = 1001;
  expect(await isPending(next)).toBe(false);
});

test('who waits leaves with the reason of the signal', async () => {
  const bucket = new TokenBucket(() => 0);
  bucket.rate = 10;
  const over = new AbortController();
  const waiting = bucket.take(100, over.signal);
  expect(await isPending(waiting.catch(() => undefined))).toBe(true);
  over.abort(new Error('the connection has ended'));
  await expect(waiting).rejects.toThrow('the connection has ended');
  await expect(bucket.take(1, over.signal)).rejects.toThrow('the connection has ended');
});

test('a rate that goes lets everybody go; pieces are small where the rate is', async () => {
  const bucket = new TokenBucket(() => 0);
  await bucket.take(2 ** 40);
  expect(bucket.pieceBytes).toBe(64 * 1024);
  bucket.rate = 10;
  expect(bucket.pieceBytes).toBe(4096);
  const waiting = [bucket.take(100), bucket.take(100)];
  expect(await isPending(waiting[1]!)).toBe(true);
  bucket.rate = 0;
  await Promise.all(waiting);
  bucket.rate = 1280 * 1024;
  expect(bucket.pieceBytes).toBe(20 * 1024);
});

/** Transfers that are cut off and go on. */
import { once } from 'node:events';
import { stat } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import type { TransferProgress } from './source/pool.ts';

const world = moverWorld();

test('a target killed in mid-window: the same call ends well, at most lanes x window is sent twice', async () => {
  const sizeBytes = 4 * WINDOW_BYTES;
  const file = await world.randomDisk('disk', sizeBytes);
  const child = await world.startTargetProcess();
  const endpoint = { unix: world.socketOf() };
  let killed = false;
  const order = orderOf({ disk: { file }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
  const summary = await world.pool.transfer({
    ...order,
    onProgress: (p) => {
      const inMidWindow = p.windowsAcked >= 1 && p.windowOpen && p.sentBytes > p.windowsAcked * WINDOW_BYTES + 8 * MIB;
      if (killed || !inMidWindow) return;
      killed = true;
      child.kill('SIGKILL');
      void once(child, 'exit').then(() => world.startTargetProcess());
    },
  });
  expect(killed).toBe(true);
  expect(summary.reconnects).toBeGreaterThan(0);
  expect(summary.sentBytes).toBeGreaterThanOrEqual(sizeBytes);
  expect(summary.sentBytes - sizeBytes).toBeLessThanOrEqual(2 * WINDOW_BYTES);
  const reread = new MemoryRepository(path.join(world.folder, 'ledger-d0'));
  expect(reread.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

test('a second call goes on from the cursor', async () => {
  const sizeBytes = 3 * WINDOW_BYTES;
  const file = await world.randomDisk('disk', sizeBytes);
  const { endpoint } = await world.start();
  const order = orderOf({ disk: { file, delayMs: 5 }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
  const stop = new AbortController();
  const reason = new Error('stopped by the test');
  const onProgress = (p: TransferProgress): unknown => p.windowsAcked >= 1 && stop.abort(reason);
  const first = world.pool.transfer({ ...order, signal: stop.signal, onProgress });
  await expect(first).rejects.toBe(reason);
  const done = world.repository.windows.size;
  const second = await world.pool.transfer(order);
  expect(second.windowsSent).toBeLessThanOrEqual(3 - done);
  expect(world.repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

test('a lane thread that crashes is replaced and its window sent again', async () => {
  const sizeBytes = 2 * WINDOW_BYTES;
  const file = await world.randomDisk('disk', sizeBytes);
  const { endpoint } = await world.start();
  const crashOnce = { offset: WINDOW_BYTES + 9 * MIB, marker: path.join(world.folder, 'crashed') };
  const summary = await world.pool.transfer(
    orderOf({ disk: { file, crashOnce }, sizeBytes, blockSize: MIB, endpoint }),
  );
  await stat(crashOnce.marker);
  expect(summary.reconnects).toBe(1);
  expect(world.repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
});

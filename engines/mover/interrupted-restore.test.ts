/** Restores whose target or lane fails: what is not durable does not count as restored. */
import { readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { emptyDisk } from '../../tests/fixtures/mover/test-servers.ts';

const world = moverWorld();

test('a cursor that cannot be written is a storage error that names its file', async () => {
  const server = world.kept(await emptyDisk(path.join(world.folder, 'empty')));
  const order = await world.restoreOrder({ unix: server.path });
  const cursorFile = path.join(world.folder, 'nowhere', 'cursor');
  const message = expect.stringContaining(cursorFile);
  const restore = world.restorePool(1).restoreDisk({ ...order, target: { ...order.target, cursorFile } });
  await expect(restore).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
});

test('what a lane wrote that died before it was durable is restored again', async () => {
  const server = world.kept(await emptyDisk(path.join(world.folder, 'empty')));
  const order = await world.restoreOrder({ unix: server.path });
  const pool = world.restorePool(2, { crashOnce: path.join(world.folder, 'crashed') });
  await expect(pool.restoreDisk(order)).rejects.toMatchObject({ code: 'TRANSFER_FAILED', details: { lost: true } });
  expect(await stat(order.target.cursorFile).catch(() => null)).toBeNull();
  expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
  expect(JSON.parse(await readFile(order.target.cursorFile, 'utf8'))).toMatchObject({ lowWater: 1, above: [] });
});

describe('a last flush that never returns', () => {
  const hanging = async (signal = new AbortController().signal) => {
    const server = world.kept(await emptyDisk(path.join(world.folder, 'empty')));
    const order = await world.restoreOrder({ unix: server.path }, signal);
    const hangOnce = path.join(world.folder, 'hangs');
    return { order, pool: world.restorePool(1, { hangOnce }, 500), hangOnce };
  };

  test('ends the restore in the end, and costs the pool no lane', async () => {
    const { order, pool } = await hanging();
    await expect(pool.restoreDisk({ ...order, targetSilenceMs: 500 })).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/its target has not made durable what was written for \d+ s/),
    });
    expect(await stat(order.target.cursorFile).catch(() => null)).toBeNull();
    expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
  });

  test('does not keep a restore from being stopped', async () => {
    const stop = new AbortController();
    const { order, pool, hangOnce } = await hanging(stop.signal);
    const restore = expect(pool.restoreDisk(order)).rejects.toThrow('enough');
    await vi.waitFor(() => stat(hangOnce), { timeout: 15_000 });
    stop.abort(new Error('enough'));
    await restore;
  });
});

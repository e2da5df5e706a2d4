/** What was written is only told done when it is durable; what hangs or fails on the way is let go of. */
import { execFileSync } from 'node:child_process';
import { open, readFile, stat } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import { moverWorld } from '../../../tests/fixtures/mover/mover-world.ts';
import { emptyDiskServer, type TestServer } from '../../../tests/fixtures/mover/test-servers.ts';

const world = moverWorld();
const emptyDisk = async (): Promise<TestServer> => world.kept(await emptyDiskServer(path.join(world.folder, 'empty')));
/** Of what has failed nothing is left behind in a lane. */
const expectLetGo = (server: TestServer) => vi.waitFor(() => expect(server.open()).toBe(0), { timeout: 5000 });

test('a cursor that cannot be read for ever does not keep a restore from being stopped', async () => {
  const stop = new AbortController();
  const order = await world.restoreOrder({ unix: path.join(world.folder, 'nobody') }, stop.signal);
  // What opens it for reading waits until somebody writes.
  execFileSync('mkfifo', [order.target.cursorFile]);
  const restore = expect(world.restorePool(1).restoreDisk(order)).rejects.toThrow('enough');
  stop.abort(new Error('enough'));
  await restore;
  await (await open(order.target.cursorFile, 'w')).close();
});

test('a cursor that cannot be written is a storage error that names its file', async () => {
  const server = await emptyDisk();
  const order = await world.restoreOrder({ unix: server.path });
  const cursorFile = path.join(world.folder, 'nowhere', 'cursor');
  const message = expect.stringContaining(cursorFile);
  const restore = world.restorePool(1).restoreDisk({ ...order, target: { ...order.target, cursorFile } });
  await expect(restore).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
});

test('what a lane wrote that died before it was durable is restored again', async () => {
  const server = await emptyDisk();
  const order = await world.restoreOrder({ unix: server.path });
  const pool = world.restorePool(2, { crashOnce: path.join(world.folder, 'crashed') });
  await expect(pool.restoreDisk(order)).rejects.toMatchObject({ code: 'TRANSFER_FAILED', details: { lost: true } });
  expect(await stat(order.target.cursorFile).catch(() => null)).toBeNull();
  expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
  expect(JSON.parse(await readFile(order.target.cursorFile, 'utf8'))).toMatchObject({ lowWater: 1, above: [] });
});

describe('a last flush that never returns', () => {
  const hanging = async (signal = new AbortController().signal) => {
    const server = await emptyDisk();
    const order = await world.restoreOrder({ unix: server.path }, signal);
    const hangOnce = path.join(world.folder, 'hangs');
    return { order, pool: world.restorePool(1, { hangOnce }, 500), hangOnce, server };
  };

  test('ends the restore in the end, and costs the pool no lane', async () => {
    const { order, pool, server } = await hanging();
    await expect(pool.restoreDisk({ ...order, targetSilenceMs: 500 })).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/its target has not made durable what was written for \d+ s/),
    });
    await expectLetGo(server);
    expect(await stat(order.target.cursorFile).catch(() => null)).toBeNull();
    expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
  });

  test('does not keep a restore from being stopped', async () => {
    const stop = new AbortController();
    const { order, pool, hangOnce, server } = await hanging(stop.signal);
    const restore = expect(pool.restoreDisk(order)).rejects.toThrow('enough');
    await vi.waitFor(() => stat(hangOnce), { timeout: 15_000 });
    stop.abort(new Error('enough'));
    await restore;
    await expectLetGo(server);
  });
});

test('a last flush that fails leaves no connection open', async () => {
  const server = await emptyDisk();
  const order = await world.restoreOrder({ unix: server.path });
  const pool = world.restorePool(1, { failOnce: path.join(world.folder, 'failed') });
  await expect(pool.restoreDisk(order)).rejects.toThrow('no flush');
  await expectLetGo(server);
  expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
});

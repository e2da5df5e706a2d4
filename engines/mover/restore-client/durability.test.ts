/** What was written is only told done when it is durable; what hangs or fails on the way is let go of. */
import { execFileSync } from 'node:child_process';
import { mkdtemp, open, readFile, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { TestRestoreLane } from '../../../tests/fixtures/mover/restore-lane.ts';
import { restoreOrderOf } from '../../../tests/fixtures/mover/restores.ts';
import { emptyDiskServer, type TestServer } from '../../../tests/fixtures/mover/test-servers.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { createRestorePool, type RestorePool } from './pool.ts';

let folder: string;
const ends: (() => unknown)[] = [];
beforeEach(async () => {
  folder = await mkdtemp(path.join(os.tmpdir(), 'td-durable-'));
});
afterEach(async () => {
  for (const end of ends.splice(0).toReversed()) await end();
  await rm(folder, { recursive: true, force: true });
});

function restorePool(laneCount: number, laneData: TestRestoreLane = {}, letGoMs = 120_000): RestorePool {
  const laneEntry = new URL('../../../tests/fixtures/mover/restore-lane.ts', import.meta.url);
  const pool = createRestorePool({ laneCount, laneEntry, laneData, letGoMs, seams: testSeams() });
  ends.push(() => pool.close());
  return pool;
}

async function emptyDisk(): Promise<TestServer> {
  const server = await emptyDiskServer(path.join(folder, 'empty'));
  ends.push(() => server.close());
  return server;
}

const restoreOrder = (unix: string, signal?: AbortSignal) =>
  restoreOrderOf({ endpoint: { unix }, file: path.join(folder, 'restored'), sizeBytes: 1024 * 1024 }, signal);
/** Of what has failed nothing is left behind in a lane. */
const expectLetGo = (server: TestServer) => vi.waitFor(() => expect(server.open()).toBe(0), { timeout: 5000 });

test('a cursor that cannot be read for ever does not keep a restore from being stopped', async () => {
  const stop = new AbortController();
  const order = await restoreOrder(path.join(folder, 'nobody'), stop.signal);
  // What opens it for reading waits until somebody writes.
  execFileSync('mkfifo', [order.target.cursorFile]);
  const restore = expect(restorePool(1).restoreDisk(order)).rejects.toThrow('enough');
  stop.abort(new Error('enough'));
  await restore;
  await (await open(order.target.cursorFile, 'w')).close();
});

test('a cursor that cannot be written is a storage error that names its file', async () => {
  const server = await emptyDisk();
  const order = await restoreOrder(server.path);
  const cursorFile = path.join(folder, 'nowhere', 'cursor');
  const message = expect.stringContaining(cursorFile);
  const restore = restorePool(1).restoreDisk({ ...order, target: { ...order.target, cursorFile } });
  await expect(restore).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
});

test('what a lane wrote that died before it was durable is restored again', async () => {
  const server = await emptyDisk();
  const order = await restoreOrder(server.path);
  const pool = restorePool(2, { crashOnce: path.join(folder, 'crashed') });
  await expect(pool.restoreDisk(order)).rejects.toMatchObject({ code: 'TRANSFER_FAILED', details: { lost: true } });
  expect(await stat(order.target.cursorFile).catch(() => null)).toBeNull();
  expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
  expect(JSON.parse(await readFile(order.target.cursorFile, 'utf8'))).toMatchObject({ lowWater: 1, above: [] });
});

describe('a last flush that never returns', () => {
  const hanging = async (signal = new AbortController().signal) => {
    const server = await emptyDisk();
    const order = await restoreOrder(server.path, signal);
    const hangOnce = path.join(folder, 'hangs');
    return { order, pool: restorePool(1, { hangOnce }, 500), hangOnce, server };
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
  const order = await restoreOrder(server.path);
  const pool = restorePool(1, { failOnce: path.join(folder, 'failed') });
  await expect(pool.restoreDisk(order)).rejects.toThrow('no flush');
  await expectLetGo(server);
  expect(await pool.restoreDisk(order)).toMatchObject({ windowsRestored: 1 });
});

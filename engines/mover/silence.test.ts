/** Whoever waits for one that says nothing can be stopped, or gives up. */
import { connect } from 'node:net';
import path from 'node:path';
import { describe, expect, test, vi } from 'vitest';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { restoreWelcome, silentServer, wireServer } from '../../tests/fixtures/mover/test-servers.ts';
import { TokenBucket } from './throttle/token-bucket.ts';
import { Wire } from './wire-session/wire.ts';

const world = moverWorld();

describe('waiting', () => {
  const shortDisk = async (endpoint: Endpoint) =>
    orderOf({ disk: { file: await world.randomDisk('short', MIB) }, sizeBytes: MIB, blockSize: MIB, endpoint });

  test('a stop gives the lane free at once, also while it waits for a silent target', async () => {
    const silent = world.kept(await silentServer(path.join(world.folder, 'silent')));
    const { endpoint } = await world.start();
    const pool = world.sourcePool(1);
    const stop = new AbortController();
    const first = pool.transfer({ ...(await shortDisk({ unix: silent.path })), signal: stop.signal });
    await silent.connected;
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await vi.waitFor(() => expect(silent.open()).toBe(0), { timeout: 15_000 });
    await pool.transfer(await shortDisk(endpoint));
  });

  test('a target that is stopped, not dead, is given up after the patience asked for', async () => {
    const child = await world.startTargetProcess();
    const file = await world.randomDisk('disk', 8 * MIB);
    const of = {
      disk: { file, delayMs: 100 },
      sizeBytes: 8 * MIB,
      blockSize: MIB,
      endpoint: { unix: world.socketOf() },
    };
    const transfer = world.sourcePool(1).transfer({
      ...orderOf(of),
      patienceMs: 2000,
      onProgress: (p) => p.windowOpen && child.kill('SIGSTOP'),
    });
    await expect(transfer).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
  });

  test('a restore that waits for its turn is stopped at once', async () => {
    const silent = world.kept(await silentServer(path.join(world.folder, 'silent')));
    const pool = world.restorePool(1);
    const stop = new AbortController();
    const first = pool.restoreDisk(await world.restoreOrder({ unix: silent.path }, stop.signal));
    const waiting = new AbortController();
    const second = pool.restoreDisk(await world.restoreOrder({ unix: silent.path }, waiting.signal));
    await silent.connected;
    waiting.abort(new Error('not wanted any more'));
    await expect(second).rejects.toThrow('not wanted any more');
    stop.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
    await vi.waitFor(() => expect(silent.open()).toBe(0), { timeout: 15_000 });
  });

  test('a storage that answers no read any more ends the transfer, and the checkpoint with it', async () => {
    const file = await world.randomDisk('disk', 8 * MIB);
    const { endpoint } = await world.start();
    const disk = { file, delayMs: 60_000 };
    const order = orderOf({ disk, sizeBytes: 8 * MIB, blockSize: MIB, compression: 'none', endpoint });
    await expect(world.sourcePool(1).transfer({ ...order, sourceSilenceMs: 500 })).rejects.toMatchObject({
      code: 'UNREACHABLE',
      message: expect.stringMatching(/its storage has answered no read for \d+ s/),
    });
  });

  test('a storage that hangs while a brake for its latency holds reads back ends the transfer as well', async () => {
    const file = await world.randomDisk('disk', 64 * MIB);
    const { endpoint } = await world.start();
    const disk = { file, delayMs: 200, hangFrom: 16 * MIB };
    const order = orderOf({ disk, sizeBytes: 64 * MIB, blockSize: MIB, compression: 'none', endpoint });
    const brakes = [{ name: 'host h1', readBytesPerSecond: null, latencyMs: 20 }];
    const told = new Set<string | null>();
    const transfer = world.sourcePool(1, { readDepth: 4 }).transfer({
      ...order,
      access: { ...order.access, brakes },
      // Longer than it takes for held-back reads to tell so again.
      sourceSilenceMs: 3000,
      onProgress: ({ waitsFor }) => told.add(waitsFor),
    });
    await expect(transfer).rejects.toMatchObject({ code: 'UNREACHABLE' });
    expect([...told].join()).toContain('brake: latency of host h1');
  });

  test('a connection that ends takes what a rate held back with it', async () => {
    const socket = connect(world.kept(await silentServer(path.join(world.folder, 'silent'))).path);
    const wire = new Wire({ socket, what: 'test', onMessage: () => undefined, onEnd: () => undefined });
    const bucket = new TokenBucket();
    bucket.rate = 1000;
    const pace = { bucket, waiting: <T>(work: () => Promise<T>) => work() };
    const head = { type: 'data', window: 0, codec: 'none', rawLength: MIB } as const;
    const held = [0, 1].map((block) => wire.sendPaced({ ...head, block }, Buffer.alloc(MIB), pace));
    wire.destroy(new Error('gone'));
    for (const each of held) await expect(each).rejects.toMatchObject({ code: 'UNREACHABLE' });
  });

  test('a restore from a target that falls silent is given up; closing the pool says why', async () => {
    const silent = world.kept(
      await wireServer(path.join(world.folder, 'deaf'), (asked) => (asked.type === 'hello' ? [restoreWelcome] : [])),
    );
    const pool = world.restorePool(2);
    const signal = new AbortController().signal;
    const impatient = { ...(await world.restoreOrder({ unix: silent.path }, signal)), patienceMs: 1000 };
    await expect(pool.restoreDisk(impatient)).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
    const closed = expect(
      pool.restoreDisk(await world.restoreOrder({ unix: silent.path }, signal)),
    ).rejects.toMatchObject({
      code: 'HOST_DRAINING',
    });
    await silent.connected;
    await pool.close();
    await closed;
  });
});

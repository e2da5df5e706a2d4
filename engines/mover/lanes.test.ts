/** The lanes of both ends: how many there are, how they begin, end and are replaced. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:net';
import path from 'node:path';
import { blake3 } from '@napi-rs/blake-hash';
import { describe, expect, test, vi } from 'vitest';
import { diskKey, restorePointId, runKey } from '../../schema/domain/ids.ts';
import type { RestoreSource } from '../../schema/domain/seams.ts';
import { encodeMessage } from '../../schema/wire/messages.ts';
import { orderOf, TEST_DISK } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, mapOf, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { fixture, MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { backupHello, dataFrame, offerFrame, rawClient } from '../../tests/fixtures/mover/raw-client.ts';
import { registrarPerDisk } from '../../tests/fixtures/mover/registrar-per-disk.ts';
import { CRASH } from '../../tests/fixtures/mover/target-marks.ts';

const world = moverWorld();

describe('lanes', () => {
  test('many disks over few lanes all end, one of them empty', async () => {
    const repositories = new Map<string, MemoryRepository>();
    const { endpoint } = await world.start({ registrar: registrarPerDisk(world.folder, repositories) });
    const pool = world.sourcePool(2);
    const sizes = Array.from({ length: 12 }, (_, i) => (i === 5 ? 0 : i * 300_000 + 1));
    const file = await world.randomDisk('disk', 12 * 300_000);
    const disk = { disk: { file }, blockSize: 256 * 1024, endpoint };
    const orders = sizes.map((sizeBytes, i) => orderOf({ ...disk, sizeBytes, diskKey: diskKey(`d${i}`) }));
    const summaries = await Promise.all(orders.map((order) => pool.transfer(order)));
    expect(summaries.map(({ windowCount }) => windowCount)).toEqual(sizes.map((size) => (size === 0 ? 0 : 1)));
    const whole = await readFile(file);
    for (const [i, sizeBytes] of sizes.entries()) {
      const expected = mapOf(whole.subarray(0, sizeBytes), 256 * 1024);
      expect(repositories.get(`d${i}`)?.map(sizeBytes, 256 * 1024) ?? []).toEqual(expected);
    }
  });

  test('a lane of the source that dies while it opens the disk is replaced', async () => {
    const file = await world.randomDisk('disk', 3 * MIB);
    const { endpoint } = await world.start();
    const crashOnce = { offset: null, marker: path.join(world.folder, 'crashed') };
    const disk = { file, crashOnce, changed: [{ offset: 0, length: 3 * MIB }] };
    const order = orderOf({ disk, sizeBytes: 3 * MIB, blockSize: MIB, mode: 'cbt', endpoint });
    expect(await world.sourcePool(1).transfer(order)).toMatchObject({ windowsSent: 1, reconnects: 1 });
    expect(world.repository.map(3 * MIB, MIB)).toEqual(await expectedMap(file, MIB));
  });

  test('no more lanes than the export takes connections', async () => {
    const file = await world.randomDisk('disk', 200 * MIB);
    const { endpoint } = await world.start();
    const order = orderOf({ disk: { file }, sizeBytes: 200 * MIB, blockSize: MIB, compression: 'none', endpoint });
    const data = { via: 'nbd' as const, at: endpoint, export: '', maxConnections: 1, model: JSON.stringify({ file }) };
    await world.sourcePool(2).transfer({ ...order, access: { ...order.access, data } });
    expect(world.repository.begun).toBe(1);
  });

  test('of a depth of one, one read at a time over all lanes', async () => {
    const file = await world.randomDisk('disk', 200 * MIB);
    const { endpoint } = await world.start();
    const order = (name: string) => {
      const disk = { file, delayMs: 5, alone: `${file}.${name}` };
      return orderOf({ disk, sizeBytes: 200 * MIB, blockSize: MIB, compression: 'none', endpoint });
    };
    await expect(world.sourcePool(2, { readDepth: 2 }).transfer(order('two'))).rejects.toThrow('EEXIST');
    expect(await world.sourcePool(2, { readDepth: 1 }).transfer(order('one'))).toMatchObject({ windowCount: 4 });
  });

  test('a lane of the target that cannot come back is tried until it can', async () => {
    await world.start();
    const lane = world.socketOf('mover.0');
    const client = await world.laneClient();
    client.send(backupHello(MIB, MIB));
    await client.next('welcome');
    const block = Buffer.alloc(MIB, CRASH);
    client.send(offerFrame({ window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
    await client.next('answer');
    client.send(dataFrame(0, 0, block));
    await client.closed;
    await rm(lane, { force: true });
    await mkdir(lane);
    await new Promise((resolve) => setTimeout(resolve, 500));
    await rm(lane, { recursive: true });
    await vi.waitFor(async () => (await world.laneClient()).destroy(), { timeout: 20_000 });
  });

  test('a target that cannot start leaves no thread behind', async () => {
    const taken = world.kept(await listenOnTcp());
    const script = `
      import { startMoverTarget } from '${new URL('./target/mover-target.ts', import.meta.url).href}';
      import { testSeams } from '${new URL('../../tests/fixtures/seams.ts', import.meta.url).href}';
      await startMoverTarget({ listen: { host: '127.0.0.1', port: ${taken.port} }, laneCount: 2,
        laneEntry: new URL('${fixture('target-lane').href}'), laneData: { folder: '${world.folder}' }, registrar: { commit() {}, commitUntouched() {} },
        restoreSource: { resolve() {}, damaged() {} }, seams: testSeams() }).catch((error) => console.log(error.code));`;
    const entry = path.join(world.folder, 'start.mjs');
    await writeFile(entry, script);
    const child = spawn(process.execPath, [entry], { stdio: ['ignore', 'pipe', 'inherit'] });
    world.kept({ close: () => child.kill('SIGKILL') });
    const [said] = (await once(child.stdout, 'data')) as [Buffer];
    expect(said.toString().trim()).toBe('UNREACHABLE');
    await once(child, 'exit');
  });

  test('closing does not wait for a client that says nothing at the door', async () => {
    await world.start({ timeouts: { helloMs: 60_000, frameMs: 10_000 } });
    const idle = await rawClient(world.socketOf());
    await world.target!.close();
    await idle.closed;
  });

  test('a connection ends for the repository after it has begun, however soon its client leaves', async () => {
    const order: string[] = [];
    const source: RestoreSource = {
      begin: async () => {
        await new Promise((resolve) => setTimeout(resolve, 300));
        order.push('begun');
        return { sizeBytes: MIB, blockSize: MIB };
      },
      resolve: () => Promise.reject(new Error('not asked')),
      damaged: () => Promise.reject(new Error('not asked')),
      end: async () => void order.push('ended'),
    };
    await world.start({ restoreSource: source });
    const client = await world.laneClient();
    client.send(restoreHello);
    await new Promise((resolve) => setTimeout(resolve, 100));
    client.destroy();
    await vi.waitFor(() => expect(order).toHaveLength(2), { timeout: 15_000 });
    expect(order).toEqual(['begun', 'ended']);
  });
});

const restoreHello = encodeMessage({
  type: 'hello',
  purpose: 'restore',
  lowestVersion: 1,
  highestVersion: 1,
  software: 'test',
  restorePointId: restorePointId('0123456789abcdef0123456789abcdef'),
  run: runKey('restore00000'),
  fence: 0,
  sizeBytes: 0,
  blockSize: 0,
  diskKey: TEST_DISK,
  creditBytes: 16 * MIB,
});

async function listenOnTcp(): Promise<{ port: number; close(): Promise<void> }> {
  const server: Server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  return { port, close: async () => void (await new Promise((resolve) => server.close(resolve))) };
}

/** Transfers that compare a disk with its base. */
import { once } from 'node:events';
import { readFile, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { beforeEach, describe, expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import type { TransferAssignment } from '../../schema/domain/restore-point.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap } from '../../tests/fixtures/mover/memory-repository.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import type { TransferProgress } from './source/pool.ts';

const world = moverWorld();

test('comparison reads everything and sends what differs', async () => {
  const sizeBytes = 40 * MIB + 7;
  const file = await world.randomDisk('disk', sizeBytes);
  world.repository.base = new Map((await expectedMap(file, MIB)).entries());
  const disk = await readFile(file);
  disk.fill(7, 3 * MIB + 1, 3 * MIB + 2);
  await writeFile(file, disk);
  const { endpoint } = await world.start();
  const summary = await world.pool.transfer(
    orderOf({ disk: { file }, sizeBytes, blockSize: MIB, mode: 'comparison', compression: 'none', endpoint }),
  );
  expect(summary).toMatchObject({ readBytes: sizeBytes, sentBytes: MIB });
});

describe('a comparison window by window', () => {
  const sizeBytes = 3 * WINDOW_BYTES + 5 * MIB + 7;
  let file: string;
  let disk: Buffer;
  beforeEach(async () => {
    file = await world.randomDisk('disk', sizeBytes, 4);
    world.repository.base = new Map((await expectedMap(file, MIB)).entries());
    disk = await readFile(file);
  });
  const compare = async (change: Partial<TransferAssignment> = {}) => {
    await writeFile(file, disk);
    const { endpoint } = world.target ?? (await world.start());
    const of = { disk: { file }, sizeBytes, blockSize: MIB, mode: 'comparison', comparableBytes: sizeBytes } as const;
    const summary = await world.pool.transfer(orderOf({ ...of, endpoint, ...change }));
    expect(world.repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
    return summary;
  };

  test('what is as in the base is told by one digest, and offered to nobody', async () => {
    expect(await compare()).toMatchObject({ readBytes: sizeBytes, sentBytes: 0, windowsSent: 4 });
    expect(world.repository.offered).toBe(0);
  });

  test('of a window that differs in few blocks those are read once more', async () => {
    disk.fill(7, WINDOW_BYTES + MIB + 1, WINDOW_BYTES + 2 * MIB + 2).fill(8, sizeBytes - 1);
    const summary = await compare();
    expect(summary.readBytes).toBe(sizeBytes + 2 * MIB + 7);
    expect(world.repository.offered).toBeGreaterThan(0);
    expect(world.repository.offered).toBeLessThanOrEqual(64 + 6);
  });

  test('what differs and is not sent yet is not done, though all of it was read', async () => {
    for (let at = 0; at < WINDOW_BYTES; at += 4096) disk.writeUInt32LE(1 + at, at);
    await writeFile(file, disk);
    const { endpoint } = await world.start();
    const of = { disk: { file }, sizeBytes, blockSize: MIB, mode: 'comparison', comparableBytes: sizeBytes } as const;
    const told: TransferProgress[] = [];
    const order = orderOf({ ...of, compression: 'none', endpoint });
    const { sentBytes } = await world.pool.transfer({ ...order, onProgress: (p) => told.push(p) });
    for (const { bytesDone, sentBytes: sent } of told)
      expect(bytesDone).toBeLessThanOrEqual(sizeBytes - (sentBytes - sent));
    expect(told.at(-1)!.bytesDone).toBe(sizeBytes);
  });

  test('a disk that is another one is read twice in the first window of each lane at most', async () => {
    for (let at = 0; at < disk.length; at += 4096) disk.writeUInt32LE(1 + at, Math.min(at, disk.length - 4));
    const { readBytes } = await compare();
    expect(readBytes).toBeGreaterThan(sizeBytes);
    expect(readBytes).toBeLessThanOrEqual(sizeBytes + 2 * WINDOW_BYTES);
  });

  test('beyond what both have nothing is compared', async () => {
    disk.fill(9, WINDOW_BYTES);
    world.repository.base = new Map([...world.repository.base!].filter(([block]) => block < 64 + 3));
    const { readBytes } = await compare({ comparableBytes: WINDOW_BYTES + 3 * MIB });
    expect(readBytes).toBe(sizeBytes);
  });

  test('costs a twentieth of the bytes on the wire that offers do', async () => {
    await world.start({ tcp: true });
    const { host, port } = world.target!.endpoint as { host: string; port: number };
    let bytes = 0;
    const count = (chunk: Buffer): void => void (bytes += chunk.length);
    const relay = createServer((socket) => {
      const on = connect(port, host);
      socket.on('data', count).pipe(on);
      on.on('data', count).pipe(socket);
    }).listen(0, '127.0.0.1');
    await once(relay, 'listening');
    const endpoint = { host: '127.0.0.1', port: (relay.address() as { port: number }).port };
    await compare({ endpoint });
    const compared = bytes;
    bytes = 0;
    world.repository.windows.clear();
    await compare({ endpoint, comparableBytes: 0 });
    relay.close();
    console.log(`${compared} bytes for 4 windows compared, ${bytes} offered`);
    // Of each lane a greeting of some 500 bytes; then 128 bytes a window, or more than 3000.
    expect(compared).toBeLessThan(1000 + 4 * 128 + 200);
    expect(bytes).toBeGreaterThan(6000);
  });
});

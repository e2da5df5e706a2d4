/** Transfers as they are meant to go, of each mode. */
import { readFile, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { describe, expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { orderOf, seeded } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap } from '../../tests/fixtures/mover/memory-repository.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { restoreInto } from '../../tests/fixtures/mover/restores.ts';
import type { TransferProgress } from './source/pool.ts';

const world = moverWorld();

describe('full', () => {
  test.each([
    { compression: 'none', blockSize: 256 * 1024, sizeBytes: 66 * MIB + 1000, tcp: false },
    { compression: 'fast', blockSize: MIB, sizeBytes: 130 * MIB + 511, tcp: true },
    { compression: 'auto', blockSize: 4 * MIB, sizeBytes: 65 * MIB, tcp: false },
    { compression: 'balanced', blockSize: MIB, sizeBytes: 0, tcp: false },
    { compression: 'small', blockSize: MIB, sizeBytes: 1, tcp: false },
  ] as const)(
    'comes back byte for byte: $compression, blocks of $blockSize, disk of $sizeBytes',
    async ({ compression, blockSize, sizeBytes, tcp }) => {
      const file = await world.randomDisk('disk', sizeBytes, 4);
      const { endpoint } = await world.start({
        restoreSource: world.repository.restoreSource(sizeBytes, blockSize),
        tcp,
      });
      let last: TransferProgress | null = null;
      const order = orderOf({ disk: { file }, sizeBytes, blockSize, compression, endpoint });
      const summary = await world.pool.transfer({ ...order, onProgress: (p) => (last = p) });
      expect(summary).toMatchObject({
        windowCount: Math.ceil(sizeBytes / WINDOW_BYTES),
        readBytes: sizeBytes,
        reconnects: 0,
      });
      expect(world.repository.map(sizeBytes, blockSize)).toEqual(await expectedMap(file, blockSize));
      expect(last).toMatchObject({ bytesDone: sizeBytes, bytesTotal: sizeBytes });
      const restored = path.join(world.folder, 'restored');
      await restoreInto({ endpoint, file: restored, sizeBytes });
      expect((await readFile(restored)).equals(await readFile(file))).toBe(true);
    },
  );

  test('several disks share the lanes, and blocks already there are not sent again', async () => {
    const sizeBytes = 70 * MIB;
    const file = await world.randomDisk('disk', sizeBytes);
    const { endpoint } = await world.start();
    const order = orderOf({ disk: { file }, sizeBytes, blockSize: MIB, compression: 'none', endpoint });
    const first = await world.pool.transfer(order);
    expect(first.sentBytes).toBe(sizeBytes);
    world.repository.windows.clear();
    const again = await Promise.all([world.pool.transfer(order), world.pool.transfer(order)]);
    expect(again.map((summary) => summary.sentBytes)).toEqual([0, 0]);
  });
});

test('cbt reads changes and alsoRead only, widened to blocks; untouched windows are one frame', async () => {
  const { next } = seeded();
  const file = path.join(world.folder, 'disk');
  const sizeBytes = 5 * WINDOW_BYTES;
  await writeFile(file, '');
  await truncate(file, sizeBytes);
  const { endpoint } = await world.start();
  const at = WINDOW_BYTES + next(30) * MIB + 5;
  const changed = [{ offset: at, length: 10 }];
  const alsoRead = [{ offset: 4 * WINDOW_BYTES, length: MIB }];
  const allocated = [
    { offset: 0, length: 4 * WINDOW_BYTES, state: 'data' as const },
    { offset: 4 * WINDOW_BYTES, length: WINDOW_BYTES, state: 'unallocated' as const },
  ];
  const order = orderOf({
    disk: { file, changed, allocated },
    sizeBytes,
    blockSize: MIB,
    mode: 'cbt',
    alsoRead,
    endpoint,
  });
  const summary = await world.pool.transfer(order);
  expect(summary).toMatchObject({ readBytes: MIB, sentBytes: 0, windowCount: 5, windowsSent: 5 });
  const map = world.repository.map(sizeBytes, MIB);
  const read = [...map.keys()].filter((block) => map[block] !== '');
  expect(read).toEqual([Math.floor(at / MIB), 256]);
  expect(world.repository.windows.get(2)).toMatchObject({ window: 2, count: 2, classes: null });
  expect(world.repository.windows.get(4)!.classes!.slice(0, 2)).toEqual(['unallocated', 'not-read']);
});

test('a block another transfer is sending is wanted after all when it does not come', async () => {
  const sizeBytes = 3 * MIB;
  const file = await world.randomDisk('disk', sizeBytes);
  const { endpoint } = await world.start();
  world.repository.pendingAnswers = 5;
  await world.pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  expect(world.repository.map(sizeBytes, MIB)).toEqual(await expectedMap(file, MIB));
  expect(world.repository.places.size).toBe(3);
});

test('refusals end the transfer with their code; a target that never comes with TRANSFER_FAILED', async () => {
  const file = path.join(world.folder, 'disk');
  await writeFile(file, Buffer.alloc(MIB, 1));
  const { endpoint } = await world.start();
  world.repository.lowestFence = 9;
  const of = { disk: { file }, sizeBytes: MIB, blockSize: MIB };
  await expect(world.pool.transfer(orderOf({ ...of, endpoint }))).rejects.toMatchObject({ code: 'FENCED' });
  const nobody = orderOf({ ...of, endpoint: { unix: path.join(world.folder, 'nobody') } });
  await expect(world.pool.transfer({ ...nobody, patienceMs: 200 })).rejects.toMatchObject({ code: 'TRANSFER_FAILED' });
});

/** What a target has acknowledged is there, whenever it or its disk fails. */
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { blake3 } from '@napi-rs/blake-hash';
import { describe, expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { diskKey } from '../../schema/domain/ids.ts';
import { blockSizes, compressions } from '../../schema/domain/states.ts';
import { orderOf, seeded, writeRandomDisk } from '../../tests/fixtures/mover/disks.ts';
import { expectedMap, MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { backupHello, dataFrame, offerFrame, windowEndFrame } from '../../tests/fixtures/mover/raw-client.ts';
import { FAIL_SYNC } from '../../tests/fixtures/mover/target-marks.ts';

const world = moverWorld();

describe('durability', () => {
  test('a failed sync ends all connections of its lane: none is acknowledged on a pack that was abandoned', async () => {
    await world.start();
    const clients = [await world.laneClient(), await world.laneClient()];
    for (const [i, client] of clients.entries()) {
      client.send(backupHello(MIB, MIB));
      await client.next('welcome');
      const block = Buffer.alloc(MIB, `block ${i}`);
      client.send(offerFrame({ window: 0, firstBlock: 0, classes: ['data'], digests: blake3(block) }));
      expect(await client.next('answer')).toMatchObject({ answers: ['want'] });
      client.send(dataFrame(0, 0, block));
      await client.next('credit');
    }
    await writeFile(path.join(world.folder, FAIL_SYNC), '');
    clients[0]!.send(windowEndFrame(0, { dataBytes: MIB }));
    expect(await clients[0]!.next('error')).toMatchObject({ code: 'STORAGE_ERROR' });
    // The other one's block lay in the same pack; it is to come again on a new connection.
    expect(await clients[1]!.next('error')).toMatchObject({ code: 'TRANSFER_FAILED' });
    expect(world.repository.windows.size).toBe(0);
  });

  test.each(['before', 'after'] as const)(
    'a target that dies %s the commit, before its ACK: the window counts once',
    async (when) => {
      const file = await world.randomDisk('disk', 3 * MIB);
      let child = await world.startTargetProcess();
      await writeFile(path.join(world.folder, `die-${when}-commit`), '');
      void once(child, 'exit').then(async () => (child = await world.startTargetProcess()));
      const order = orderOf({
        disk: { file },
        sizeBytes: 3 * MIB,
        blockSize: MIB,
        compression: 'none',
        endpoint: { unix: world.socketOf() },
      });
      const summary = await world.sourcePool(2).transfer(order);
      expect(summary).toMatchObject({ windowCount: 1, windowsSent: when === 'before' ? 1 : 0 });
      const reread = new MemoryRepository(path.join(world.folder, 'ledger-d0'));
      expect(reread.map(3 * MIB, MIB)).toEqual(await expectedMap(file, MIB));
    },
  );
});

test('disks of all sizes come whole through a target that is killed again and again', async () => {
  const { next } = seeded();
  let child = await world.startTargetProcess();
  const pool = world.sourcePool(2);
  const sizes = [WINDOW_BYTES + next(1_000_000), next(WINDOW_BYTES), 512 + next(4096), 1];
  const orders = await Promise.all(
    sizes.map(async (sizeBytes, i) => {
      const file = path.join(world.folder, `disk${i}`);
      await writeRandomDisk(file, sizeBytes, next);
      const crashOnce = { offset: next(sizeBytes), marker: path.join(world.folder, `crash${i}`) };
      const blockSize = blockSizes[next(4)]!;
      const compression = compressions[next(compressions.length)]!;
      const of = {
        disk: { file, delayMs: 10, crashOnce },
        sizeBytes,
        blockSize,
        compression,
        diskKey: diskKey(`d${i}`),
      };
      return { file, order: orderOf({ ...of, endpoint: { unix: world.socketOf() } }) };
    }),
  );
  const transfers = Promise.all(orders.map(({ order }) => pool.transfer(order)));
  const ended = transfers.then(() => 'ended');
  for (let kills = 0; kills < 4; kills += 1) {
    if ((await Promise.race([ended, sleep(200 + next(800))])) === 'ended') break;
    child.kill('SIGKILL');
    await once(child, 'exit');
    child = await world.startTargetProcess();
  }
  await transfers;
  for (const { file, order } of orders) {
    const { sizeBytes, blockSize, diskKey: key } = order.assignment;
    const ledger = new MemoryRepository(path.join(world.folder, `ledger-${key}`));
    expect(ledger.map(sizeBytes, blockSize)).toEqual(await expectedMap(file, blockSize));
  }
}, 90_000);

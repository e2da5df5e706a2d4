/** Restores of what was transferred. */
import { randomFillSync } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test } from 'vitest';
import { WINDOW_BYTES } from '../../schema/domain/extents.ts';
import { orderOf, TEST_DISK } from '../../tests/fixtures/mover/disks.ts';
import { MIB, moverWorld } from '../../tests/fixtures/mover/mover-world.ts';
import { restoreInto } from '../../tests/fixtures/mover/restores.ts';
import { MOST_DECODED } from './restore-client/restore-connection.ts';

const world = moverWorld();

test('a restore goes on from its cursor file; one that is not sound is no cursor', async () => {
  const file = path.join(world.folder, 'disk');
  const sizeBytes = 2 * WINDOW_BYTES + 12_345;
  const { endpoint } = await world.start({ restoreSource: world.repository.restoreSource(sizeBytes, MIB) });
  const whole = Buffer.alloc(sizeBytes);
  for (const window of [0, 1, 2]) randomFillSync(whole, window * WINDOW_BYTES, 12_345);
  await writeFile(file, whole);
  await world.pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  const restored = path.join(world.folder, 'restored');
  const of = { restorePointId: '0123456789abcdef0123456789abcdef', diskKey: TEST_DISK, sizeBytes };
  const cursors = [
    { cursor: { lowWater: 0, above: [1] }, there: [1], windowsRestored: 2 },
    { cursor: { lowWater: 3, above: [] }, there: [0, 1, 2], windowsRestored: 0 },
    // Of a former form; of windows that are not there; out of order.
    { cursor: { windowsDone: 2 }, there: [], windowsRestored: 3 },
    { cursor: { lowWater: 1, above: [3] }, there: [], windowsRestored: 3 },
    { cursor: { lowWater: 0, above: [2, 1] }, there: [], windowsRestored: 3 },
  ];
  for (const { cursor, there, windowsRestored } of cursors) {
    const before = Buffer.alloc(sizeBytes);
    for (const window of there)
      whole.copy(before, window * WINDOW_BYTES, window * WINDOW_BYTES, (window + 1) * WINDOW_BYTES);
    await writeFile(restored, before);
    await writeFile(`${restored}.cursor`, JSON.stringify({ ...of, ...cursor }));
    expect(await restoreInto({ endpoint, file: restored, sizeBytes })).toMatchObject({ windowsRestored });
    expect((await readFile(restored)).equals(whole)).toBe(true);
    expect(JSON.parse(await readFile(`${restored}.cursor`, 'utf8'))).toEqual({ ...of, lowWater: 3, above: [] });
  }
});

test('of blocks that come well compressed few are decoded before a slow target has written them', async () => {
  const file = path.join(world.folder, 'disk');
  const blocks = Array.from({ length: 40 }, (_, block) => Buffer.alloc(MIB, `block ${block} `));
  await writeFile(file, Buffer.concat(blocks));
  const sizeBytes = blocks.length * MIB;
  const { endpoint } = await world.start({ restoreSource: world.repository.restoreSource(sizeBytes, MIB) });
  const { sentBytes } = await world.pool.transfer(orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint }));
  // All of them are on their way at once: what they take up is not bounded by credit.
  expect(sentBytes).toBeLessThan(MIB);
  const ahead = new Int32Array(new SharedArrayBuffer(8));
  const restored = path.join(world.folder, 'restored');
  await restoreInto({ endpoint, file: restored, sizeBytes }, { ahead, writeMs: 30 });
  expect((await readFile(restored)).equals(await readFile(file))).toBe(true);
  expect([...ahead]).toEqual([0, MOST_DECODED]);
});

/** What the owner of a target tells its lanes. */
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { moverWorld } from '../../../tests/fixtures/mover/mover-world.ts';
import { CRASH, REFUSED } from '../../../tests/fixtures/mover/target-marks.ts';

const world = moverWorld();

test('all lanes hear it; one that refuses it is named, one that dies of it is replaced', async () => {
  const target = await world.start();
  const heard = async (): Promise<string[]> =>
    (await readFile(path.join(world.folder, 'told'), 'utf8')).trim().split('\n');
  await target.tell('news');
  expect(await heard()).toEqual(['news', 'news']);
  await expect(target.tell(REFUSED)).rejects.toThrow('cannot be borne');
  await target.tell(CRASH);
  for (const lane of [0, 1])
    await vi.waitFor(async () => (await world.laneClient(lane)).destroy(), { timeout: 20_000 });
  await target.tell('more');
  expect(await heard()).toEqual(['news', 'news', 'more', 'more']);
});

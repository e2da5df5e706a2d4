/** What the owner of a target tells its lanes. */
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { expect, test, vi } from 'vitest';
import { MemoryRepository } from '../../../tests/fixtures/mover/memory-repository.ts';
import { rawClient } from '../../../tests/fixtures/mover/raw-client.ts';
import { CRASH, REFUSED } from '../../../tests/fixtures/mover/target-marks.ts';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { startMoverTarget } from './mover-target.ts';

test('all lanes hear it; one that refuses it is named, one that dies of it is replaced', async () => {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-tell-'));
  const socket = path.join(folder, 'sock', 'mover');
  const repository = new MemoryRepository(path.join(folder, 'ledger'));
  const target = await startMoverTarget({
    listen: { unix: socket },
    laneCount: 2,
    laneEntry: new URL('../../../tests/fixtures/mover/target-lane.ts', import.meta.url),
    laneData: { folder },
    registrar: repository,
    restoreSource: repository.restoreSource(0, 0),
    seams: testSeams(),
  });
  const heard = async (): Promise<string[]> => (await readFile(path.join(folder, 'told'), 'utf8')).trim().split('\n');
  try {
    await target.tell('news');
    expect(await heard()).toEqual(['news', 'news']);
    await expect(target.tell(REFUSED)).rejects.toThrow('cannot be borne');
    await target.tell(CRASH);
    for (const lane of [0, 1])
      await vi.waitFor(async () => (await rawClient(`${socket}.${lane}`)).destroy(), { timeout: 20_000 });
    await target.tell('more');
    expect(await heard()).toEqual(['news', 'news', 'more', 'more']);
  } finally {
    await target.close();
    await rm(folder, { recursive: true });
  }
});

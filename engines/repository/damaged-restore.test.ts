/** Restores over the mover of what is damaged or has been moved: any sound copy serves, else it is said what is broken. */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import { rotBlock } from '../../tests/fixtures/repository/damage.ts';
import { inEachTest } from '../../tests/fixtures/repository/in-each-test.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  runOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../tests/fixtures/repository/verbs.ts';
import { createRestorePool, type RestorePool } from '../mover/restore-client/pool.ts';
import { startMoverTarget, type MoverTarget } from '../mover/target/mover-target.ts';

process.env['TIDEMARK_LOG'] ??= 'error';
let world: TestRepository;
let folder: string;
let target: MoverTarget | null = null;
let restores: RestorePool;
const { sealedFull } = inEachTest(createTestRepository, (made) => (world = made));
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-damaged-'));
  const laneEntry = new URL('../../tests/fixtures/mover/restore-lane.ts', import.meta.url);
  restores = createRestorePool({ laneCount: 2, laneEntry, seams: world.seams });
});
afterEach(async () => {
  await restores.close();
  await target?.close();
  target = null;
  await rm(folder, { recursive: true });
});

async function restore(restorePointId: RestorePointId, sizeBytes: number): Promise<Buffer> {
  target ??= await startMoverTarget({
    listen: { unix: join(folder, 's', 'm') },
    laneCount: 1,
    laneEntry: new URL('../../workers/lanes/target-lane.ts', import.meta.url),
    laneData: { storage: { kind: 'folder', folder: world.folder }, keys: world.repository.laneKeys },
    registrar: world.repository.registrar,
    restoreSource: world.repository.restoreSource,
    seams: world.seams,
  });
  const file = join(folder, `restored-${restorePointId}`);
  await writeFile(file, '', { flag: 'a' });
  await truncate(file, sizeBytes);
  const run = runOf(99);
  const access = { run, diskKey: DISK, sizeBytes, cursorFile: `${file}.cursor` };
  await restores.restoreDisk({
    run,
    restorePointId,
    diskKey: DISK,
    endpoint: target.endpoint,
    target: {
      ...access,
      data: {
        via: 'file',
        path: file,
      },
    },
    signal: new AbortController().signal,
  });
  return readFile(file);
}

test('a rotten block: the error names disk, block and pack, and what is whole; then it heals', async () => {
  // Of two windows, so that both lanes have one.
  const disk = diskOf(66);
  const old = await sealedFull(1, diskOf(4, 'old'));
  const sealed = await sealedFull(2, disk);
  await world.reopen();
  const place = await rotBlock(world, sealed.restorePointId, 65);
  const error = {
    code: 'DAMAGED_BLOCK',
    message: expect.stringMatching(
      new RegExp(
        `disk d0, block 65 at byte ${65 * MIB}: damaged in pack ${place.pack} at ${place.offset}: .*${old.restorePointId} before`,
      ),
    ) as string,
  };
  await expect(restore(sealed.restorePointId, disk.length)).rejects.toMatchObject(error);
  expect((await restore(old.restorePointId, 4 * MIB)).equals(diskOf(4, 'old'))).toBe(true);
  await sealedFull(3, disk);
  expect((await restore(sealed.restorePointId, disk.length)).equals(disk)).toBe(true);
});

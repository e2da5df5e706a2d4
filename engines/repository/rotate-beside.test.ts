/** A new data key while the threads of real lanes go on: what is written with it all of them can read at once. */
import { mkdtemp, readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { KEY_FILE } from '../../tests/fixtures/repository/keys.ts';
import { dataKeysUsed } from '../../tests/fixtures/repository/keys-used.ts';
import {
  createTestRepository,
  DISK,
  MAIN,
  planOf,
  runOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../tests/fixtures/repository/verbs.ts';
import { createRestorePool } from '../mover/restore-client/pool.ts';
import { createSourcePool } from '../mover/source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../mover/target/mover-target.ts';
import { rotateKey } from './change-keys.ts';

const LANES = 2;
let folder: string;
let world: TestRepository;
let target: MoverTarget;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'td-rotate-'));
  world = await createTestRepository({ secret: KEY_FILE, open: { tellLanes: (keys) => target.tell(keys) } });
  target = await startMoverTarget({
    listen: { unix: join(folder, 's', 'm') },
    laneCount: LANES,
    laneEntry: new URL('../../workers/lanes/target-lane.ts', import.meta.url),
    laneData: { storage: { kind: 'folder', folder: world.folder }, keys: world.repository.laneKeys, security: null },
    registrar: world.repository.registrar,
    restoreSource: world.repository.restoreSource,
    seams: world.seams,
  });
});
afterEach(async () => {
  await target.close();
  await world.close();
  await rm(folder, { recursive: true });
});
const { openPoint, assign, seal } = verbsOf(() => world);

async function backUp(number: number, disk: Buffer): Promise<RestorePointId> {
  const { seams } = world;
  const laneEntry = new URL('../../tests/fixtures/mover/source-lane.ts', import.meta.url);
  const pool = createSourcePool({ laneCount: LANES, laneEntry, seams });
  try {
    const point = await openPoint(number);
    const given = { ...(await assign(point, planOf(disk.length))), endpoint: target.endpoint };
    const file = join(folder, `disk${number}`);
    await writeFile(file, disk);
    const { sizeBytes, blockSize, endpoint } = given;
    const order = orderOf({ disk: { file }, sizeBytes, blockSize, endpoint });
    await pool.transfer({ ...order, access: { ...order.access, run: point.run }, assignment: given });
    await seal(point);
    await target.closePacks();
    return point.restorePointId;
  } finally {
    await pool.close();
  }
}

async function restore(restorePointId: RestorePointId, sizeBytes: number): Promise<Buffer> {
  const laneEntry = new URL('../../tests/fixtures/mover/restore-lane.ts', import.meta.url);
  const restores = createRestorePool({ laneCount: LANES, laneEntry, seams: world.seams });
  try {
    const file = join(folder, `restored-${restorePointId}`);
    await writeFile(file, '');
    await truncate(file, sizeBytes);
    const run = runOf(99);
    const access = {
      run,
      diskKey: DISK,
      sizeBytes,
      cursorFile: `${file}.cursor`,
      data: { via: 'file' as const, path: file },
    };
    const { signal } = new AbortController();
    await restores.restoreDisk({
      run,
      restorePointId,
      diskKey: DISK,
      endpoint: target.endpoint,
      target: access,
      signal,
    });
    return await readFile(file);
  } finally {
    await restores.close();
  }
}

test('lanes that run write with it from the next backup on, and read what they wrote', async () => {
  // Of three windows, so that all lanes have some.
  const [old, fresh] = [diskOf(130), diskOf(130, 'b')];
  const first = await backUp(1, old);
  const { storage, seams } = world;
  await rotateKey({ storage, repositoryId: MAIN, secret: KEY_FILE, seams });
  const second = await backUp(2, fresh);
  expect(await dataKeysUsed(world.folder)).toEqual([1, 2]);
  expect((await restore(second, fresh.length)).equals(fresh)).toBe(true);
  expect((await restore(first, old.length)).equals(old)).toBe(true);
});

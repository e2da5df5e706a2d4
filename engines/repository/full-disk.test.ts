/** A repository whose file system is full: nothing sealed is harmed, and it goes on once there is room. */
import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  planOf,
  runOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf, type Point } from '../../tests/fixtures/repository/verbs.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { mountSmallDisk, type SmallDisk, whyNoSmallDisk } from '../../tests/fixtures/small-disk.ts';
import { createSourcePool } from '../mover/source/pool.ts';
import { startMoverTarget } from '../mover/target/mover-target.ts';

// The lanes' own logs: refusals are what is tested.
process.env['TIDEMARK_LOG'] ??= 'error';
const why = whyNoSmallDisk();
if (why) console.warn(`tests of full disks are left out: ${why}`);

const SIZE_MIB = 12;
let small: SmallDisk;
let world: TestRepository;
const { openPoint, assign, send, seal, abort, sealedFull } = verbsOf(() => world);
const full = expect.objectContaining({ code: 'REPOSITORY_FULL' }) as Error;
const filler = (): string => join(small.folder, 'filler');

/** Takes every byte there is. */
function fill(): void {
  for (const piece of [256 * 1024, 4096]) {
    try {
      for (;;) writeFileSync(filler(), Buffer.alloc(piece, 1), { flag: 'a' });
    } catch (error) {
      expect(error).toMatchObject({ code: 'ENOSPC' });
    }
  }
}
const makeRoom = (): Promise<void> => rm(filler());

/** Nothing compresses and nothing is met twice. */
const noise = (blocks: number): Buffer => randomBytes(blocks * MIB);
const sameAsSealed = async (point: { restorePointId: Point['restorePointId'] }, disk: Buffer): Promise<boolean> =>
  (await handRestore(world, point.restorePointId, DISK)).equals(disk);

describe.skipIf(why !== null)('a full disk', () => {
  beforeEach(async () => {
    small = mountSmallDisk(SIZE_MIB)!;
    world = await createTestRepository({ folder: join(small.folder, 'r') });
  });
  afterEach(async () => {
    await world.close();
    small.remove();
  });

  test('in a transfer: refused; what is sealed is whole, also for the next process; with room it goes on', async () => {
    writeFileSync(filler(), Buffer.alloc(3 * MIB, 1));
    const first = noise(3);
    const sealed = await sealedFull(1, first);
    const point = await openPoint(2);
    const disk = noise(SIZE_MIB);
    const assignment = await assign(point, planOf(disk.length));
    await expect(send({ assignment, disk })).rejects.toEqual(full);
    fill();
    expect(await sameAsSealed(sealed, first)).toBe(true);
    await world.reopen({ clean: false });
    expect(await sameAsSealed(sealed, first)).toBe(true);
    await expect(send({ assignment, disk })).rejects.toEqual(full);
    expect(await abort(point)).toEqual({ outcome: 'aborted' });
    await makeRoom();
    const next = noise(1);
    expect(await sameAsSealed(await sealedFull(3, next), next)).toBe(true);
    await world.reopen();
    expect(await sameAsSealed(sealed, first)).toBe(true);
  });

  test('every verb says so and decides nothing; the same verbs succeed with room', async () => {
    const disk = diskOf(3);
    const point = await openPoint(1);
    const assignment = await assign(point, planOf(disk.length));
    fill();
    await expect(openPoint(2)).rejects.toEqual(full);
    await expect(world.repository.declareDisks({ ...point, disks: [] })).rejects.toEqual(full);
    await expect(assign(point, planOf(disk.length), 2)).rejects.toEqual(full);
    expect(await assign(point, planOf(disk.length), 1)).toEqual(assignment);
    await expect(send({ assignment, disk })).rejects.toEqual(full);
    await makeRoom();
    await send({ assignment, disk });
    fill();
    await expect(seal(point)).rejects.toEqual(full);
    expect(world.repository.listSealed()).toEqual([]);
    await world.reopen({ clean: false });
    await expect(seal(point)).rejects.toEqual(full);
    await makeRoom();
    const sealed = await seal(point);
    fill();
    expect(await seal(point)).toEqual(sealed);
    await world.reopen({ clean: false });
    expect(await sameAsSealed(sealed, disk)).toBe(true);
  });

  test('an abort has its room reserved; that of a run never opened waits for room', async () => {
    const disk = diskOf(3);
    const [point, empty] = [await openPoint(1), await openPoint(2)];
    await send({ assignment: await assign(point, planOf(disk.length)), disk });
    for (const one of [empty, point]) {
      fill();
      expect(await abort(one)).toEqual({ outcome: 'aborted' });
      await world.reopen({ clean: false });
      expect(await abort(one)).toEqual({ outcome: 'aborted' });
    }
    fill();
    const unknown = { restorePointId: null, run: runOf(3) };
    await expect(world.repository.abort(unknown)).rejects.toEqual(full);
    await makeRoom();
    expect(await world.repository.abort(unknown)).toEqual({ outcome: 'aborted' });
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
  });

  test('an open pack that cannot be closed is read where it is, and closed at a later start', async () => {
    // So many records that their footer does not fit into the rest of a page.
    const disk = diskOf(60);
    const sealed = await sealedFull(1, disk);
    fill();
    await world.reopen({ clean: false });
    expect(await readdir(join(world.folder, 'open', 'packs'))).not.toEqual([]);
    expect(await sameAsSealed(sealed, disk)).toBe(true);
    await makeRoom();
    await world.reopen({ clean: false });
    expect(await readdir(join(world.folder, 'open', 'packs'))).toEqual([]);
    expect(await sameAsSealed(sealed, disk)).toBe(true);
  });

  test('the mover tells the source, and the next transfer succeeds with room', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'td-full-'));
    const seams = testSeams();
    const target = await startMoverTarget({
      listen: { unix: join(folder, 's', 'm') },
      laneCount: 2,
      laneEntry: new URL('../../workers/lanes/target-lane.ts', import.meta.url),
      laneData: { storage: { kind: 'folder', folder: world.folder }, keys: null },
      registrar: world.repository.registrar,
      restoreSource: world.repository.restoreSource,
      seams,
    });
    const laneEntry = new URL('../../tests/fixtures/mover/source-lane.ts', import.meta.url);
    const pool = createSourcePool({ laneCount: 2, laneEntry, seams });
    try {
      const transfer = async (number: number, disk: Buffer) => {
        const point = await openPoint(number);
        const given = { ...(await assign(point, planOf(disk.length))), endpoint: target.endpoint };
        const file = join(folder, `disk${number}`);
        await writeFile(file, disk);
        const { sizeBytes, blockSize } = given;
        const order = orderOf({ disk: { file }, sizeBytes, blockSize, endpoint: target.endpoint });
        await pool.transfer({ ...order, access: { ...order.access, run: point.run }, assignment: given });
        return point;
      };
      const keep = join(small.folder, 'keep');
      await writeFile(keep, noise(3));
      await expect(transfer(1, noise(SIZE_MIB + 2))).rejects.toEqual(full);
      fill();
      await expect(transfer(2, noise(1))).rejects.toEqual(full);
      await rm(keep);
      const disk = diskOf(2);
      const sealed = await seal(await transfer(3, disk));
      expect(await sameAsSealed(sealed, disk)).toBe(true);
    } finally {
      await pool.close();
      await target.close();
      await rm(folder, { recursive: true });
    }
  });
});

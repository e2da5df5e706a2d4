import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { lineageId, vmId } from '../../../schema/domain/ids.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  planOf,
  runOf,
  specOf,
  type TestRepository,
} from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: TestRepository;
beforeEach(async () => {
  world = await createTestRepository();
});
afterEach(() => world.close());

const { openPoint, assign, send, seal, sealedFull } = verbsOf(() => world);
const codes = (code: string, text = '') =>
  ({ code, message: expect.stringContaining(text) as string }) as Record<string, unknown>;

describe('what the repository lost', () => {
  test('is read again by the next increment, which heals what is sealed', async () => {
    const disk = diskOf(70, 'a', 5000);
    const full = await sealedFull(1, disk);
    await world.reopen();
    // The pack of the blocks goes; that of the pages stays.
    for (const shelf of await readdir(join(world.folder, 'packs')))
      await rm(join(world.folder, 'packs', shelf), { recursive: true });
    await world.reopen({ loseIndex: true });
    await expect(handRestore(world, full.restorePointId, DISK)).rejects.toMatchObject(
      codes('DAMAGED_BLOCK', 'block 0'),
    );
    const point = await openPoint(2);
    const base = { mode: 'cbt' as const, baseRestorePointId: full.restorePointId };
    const assignment = await assign(point, planOf(disk.length, base));
    expect(assignment.alsoRead).toEqual([{ offset: 0, length: disk.length }]);
    await send({ assignment, disk, changed: [] });
    expect((await seal(point)).manifest.disks[0]?.conservation.unchangedBytes).toBe(disk.length);
    for (const id of [full.restorePointId, point.restorePointId])
      expect((await handRestore(world, id, DISK)).equals(disk)).toBe(true);
  });

  test('pages: by CBT and by comparison', async () => {
    for (const mode of ['cbt', 'comparison'] as const) {
      const disk = diskOf(3, mode);
      const full = await sealedFull(mode === 'cbt' ? 1 : 3, disk);
      await world.reopen();
      for (const shelf of await readdir(join(world.folder, 'meta')))
        await rm(join(world.folder, 'meta', shelf), { recursive: true });
      await world.reopen();
      const point = await openPoint(mode === 'cbt' ? 2 : 4);
      const base = { mode, baseRestorePointId: full.restorePointId };
      const assignment = await assign(point, planOf(disk.length, base));
      const { answers } = await send({ assignment, disk, changed: [] });
      expect(answers).toEqual({ have: 3 });
      await seal(point);
      for (const id of [full.restorePointId, point.restorePointId])
        expect((await handRestore(world, id, DISK)).equals(disk)).toBe(true);
    }
  });

  test('a disk whose last block has the bytes of a map page, made before or after it, is stored and restored', async () => {
    const pageOf = (disk: Buffer): Buffer =>
      Buffer.concat(
        Array.from({ length: disk.length / MIB }, (_, at) => digestOf(disk.subarray(at * MIB, (at + 1) * MIB))),
      );
    const [early, late] = [diskOf(4, 'early'), diskOf(4, 'late')];
    const other = { vm: { ...specOf(runOf(2)).vm, vmId: vmId('other') }, lineage: lineageId('0f') };
    const first = await sealedFull(1, early);
    expect(digestOf(pageOf(early)).toString('hex')).toBe(first.manifest.disks[0]!.root);
    const disks = [
      [first, early],
      ...(await inTurn([pageOf(early), pageOf(late)], async (page, at) => {
        const disk = Buffer.concat([diskOf(1), page]);
        return [await sealedFull(2 + at, disk, other), disk] as const;
      })),
      [await sealedFull(4, late), late],
    ] as const;
    for (const loseIndex of [false, true]) {
      for (const [point, disk] of disks)
        expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
      await world.reopen({ loseIndex });
    }
  });

  async function inTurn<A, B>(items: A[], work: (item: A, at: number) => Promise<B>): Promise<B[]> {
    const done: B[] = [];
    for (const [at, item] of items.entries()) done.push(await work(item, at));
    return done;
  }
});

import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { Extent } from '../../../schema/domain/extents.ts';
import { lineageId, type RestorePointId, vmId } from '../../../schema/domain/ids.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { flipBit, packPath, packsOf, placeOfBlock, rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  planOf,
  runOf,
  specOf,
  type TestRepository,
} from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: TestRepository;
const { openPoint, assign, send, seal, sealedFull } = inEachTest(createTestRepository, (made) => (world = made));

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

  test('a payload that rotted in a closed pack: the restore that meets it says so, and the next increment heals it', async () => {
    const [old, disk] = [diskOf(3, 'old'), diskOf(3)];
    const before = await sealedFull(1, old);
    const full = await sealedFull(2, disk);
    await world.reopen();
    const place = await rotBlock(world, full.restorePointId, 1);
    const message = `disk d0, block 1 at byte ${MIB}: damaged in pack ${place.pack} at ${place.offset}: its payload is damaged; whole: restore point ${before.restorePointId} before it`;
    await expect(handRestore(world, full.restorePointId, DISK)).rejects.toMatchObject({
      ...codes('DAMAGED_BLOCK', message),
      details: { before: before.restorePointId, after: null },
    });
    for (const loseIndex of [false, true]) {
      await world.reopen({ loseIndex });
      await expect(handRestore(world, full.restorePointId, DISK)).rejects.toMatchObject(
        codes('DAMAGED_BLOCK', 'block 1 at byte 1048576: missing'),
      );
    }
    expect(await increment(3, full.restorePointId, disk)).toEqual([{ offset: MIB, length: MIB }]);
    expect((await handRestore(world, full.restorePointId, DISK)).equals(disk)).toBe(true);
    await world.reopen({ loseIndex: true });
    expect((await handRestore(world, full.restorePointId, DISK)).equals(disk)).toBe(true);
  });

  test('of two copies the sound one is found, whichever is read first', async () => {
    const disk = diskOf(3);
    const full = await sealedFull(1, disk);
    await world.reopen();
    const rotten = await rotBlock(world, full.restorePointId, 1);
    // As two transfers at once leave it.
    const block = disk.subarray(MIB, 2 * MIB);
    const { restorePointId } = full;
    const record = { digest: digestOf(block), codec: 'none' as const, rawLength: MIB, payload: block, restorePointId };
    const copies = [world.sink.append(record)];
    await world.reopen({ loseIndex: true });
    if ((await placeOfBlock(world, restorePointId, 1)).pack === rotten.pack)
      await handRestore(world, restorePointId, DISK).catch(() => undefined);
    for (const loseIndex of [false, true]) {
      await world.reopen({ loseIndex });
      expect((await handRestore(world, restorePointId, DISK)).equals(disk)).toBe(true);
    }
    expect((await placeOfBlock(world, restorePointId, 1)).pack).toBe(copies[0]!.pack);
  });

  test('a page that rotted is read once, and not trusted after a restart', async () => {
    const disk = diskOf(3);
    const full = await sealedFull(1, disk);
    await world.reopen();
    const [pack] = await packsOf(world, 'pages');
    await flipBit(packPath(world, pack!, 'pages'), 64 + 128 + 5);
    const page = codes('DAMAGED_BLOCK', 'block 0 at byte 0: map page');
    await expect(handRestore(world, full.restorePointId, DISK)).rejects.toMatchObject(page);
    await flipBit(packPath(world, pack!, 'pages'), 64 + 128 + 5);
    await world.reopen({ loseIndex: true });
    await expect(handRestore(world, full.restorePointId, DISK)).rejects.toMatchObject(page);
    expect(await increment(2, full.restorePointId, disk)).toEqual([{ offset: 0, length: disk.length }]);
    expect((await handRestore(world, full.restorePointId, DISK)).equals(disk)).toBe(true);
  });

  /** By CBT, which says that nothing has changed; what was read all the same. */
  async function increment(number: number, base: RestorePointId, disk: Buffer): Promise<Extent[]> {
    const point = await openPoint(number);
    const assignment = await assign(point, planOf(disk.length, { mode: 'cbt', baseRestorePointId: base }));
    await send({ assignment, disk, changed: [] });
    await seal(point);
    return assignment.alsoRead;
  }

  async function inTurn<A, B>(items: A[], work: (item: A, at: number) => Promise<B>): Promise<B[]> {
    const done: B[] = [];
    for (const [at, item] of items.entries()) done.push(await work(item, at));
    return done;
  }
});

describe('a base that turns out to be damaged while it is built upon', () => {
  const LOST = 'TRACKING_LOST';
  async function assigned(blocks: number) {
    const disk = diskOf(blocks);
    const full = await sealedFull(1, disk);
    await world.reopen();
    const point = await openPoint(2);
    const plan = planOf(disk.length, { mode: 'cbt', baseRestorePointId: full.restorePointId });
    const assignment = await assign(point, plan);
    expect(assignment.alsoRead).toEqual([]);
    return { disk, full, point, plan, assignment };
  }
  const meet = async (restorePointId: RestorePointId, block: number): Promise<void> => {
    await rotBlock(world, restorePointId, block);
    await expect(handRestore(world, restorePointId, DISK)).rejects.toMatchObject(codes('DAMAGED_BLOCK'));
  };

  test.each([
    ['a window of which part is read', [{ offset: 0, length: MIB }]],
    ['a window of which nothing is read', []],
  ])('%s: the disk has to be compared, which heals it', async (_, changed) => {
    const { disk, full, point, assignment } = await assigned(3);
    await meet(full.restorePointId, 1);
    await expect(send({ assignment, disk, changed })).rejects.toMatchObject(
      codes(LOST, `block 1 stands on restore point ${full.restorePointId}, which has lost it`),
    );
    const plan = planOf(disk.length, { mode: 'comparison', baseRestorePointId: full.restorePointId });
    const { answers } = await send({ assignment: await assign(point, plan, 2), disk });
    expect(answers).toEqual({ unchanged: 2, want: 1 });
    const sealed = await seal(point);
    expect(sealed.manifest.disks[0]!.root).toBe(full.manifest.disks[0]!.root);
    expect((await handRestore(world, full.restorePointId, DISK)).equals(disk)).toBe(true);
  });

  test.each([
    ['a record', (id: RestorePointId) => meet(id, 1)],
    [
      'a page',
      async (id: RestorePointId) => {
        const [pack] = await packsOf(world, 'pages');
        await flipBit(packPath(world, pack!, 'pages'), 64 + 128 + 5);
        await world.reopen();
        await expect(handRestore(world, id, DISK)).rejects.toMatchObject(codes('DAMAGED_BLOCK', 'map page'));
      },
    ],
  ])('after its windows were sent: %s', async (_, damage) => {
    const { disk, full, point, plan, assignment } = await assigned(3);
    await send({ assignment, disk, changed: [{ offset: 0, length: MIB }] });
    await damage(full.restorePointId);
    await expect(seal(point)).rejects.toMatchObject(codes(LOST, 'which has lost it'));
    // Another assignment reads what was lost.
    const again = await assign(point, plan, 2);
    expect(again.alsoRead.length).toBe(1);
  });
});

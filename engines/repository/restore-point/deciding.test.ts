import { cp, mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { diskKey, restorePointId } from '../../../schema/domain/ids.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import { codes, inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { strangerRecords } from '../../../tests/fixtures/repository/stranger-reader.ts';
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
const { openPoint, assign, send, seal, abort, sealedFull } = inEachTest(createTestRepository, (made) => (world = made));

describe('sealing', () => {
  test('counts every block once: zero, unallocated, stored, deduplicated, unchanged', async () => {
    const disk = diskOf(10, 'a', 1000);
    disk.fill(0, 2 * MIB, 4 * MIB); // block 2 is zero, block 3 unallocated
    disk.copy(disk, 5 * MIB, 4 * MIB, 5 * MIB); // block 5 repeats block 4
    const full = await sealedFull(1, disk);
    expect(full.manifest.disks[0]?.conservation).toEqual({
      sizeBytes: disk.length,
      unallocatedBytes: MIB,
      zeroBytes: MIB,
      filteredBytes: 0,
      unchangedBytes: 0,
      deduplicatedBytes: MIB,
      storedBytes: 6 * MIB + 1000,
    });
    const point = await openPoint(2);
    const now = Buffer.from(disk);
    now.fill('new', 0, MIB); // stored
    disk.copy(now, MIB, 4 * MIB, 5 * MIB); // deduplicated
    now.fill(0, 6 * MIB, 8 * MIB); // zero, unallocated
    const base = { mode: 'cbt' as const, baseRestorePointId: full.restorePointId };
    const assignment = await assign(point, planOf(now.length, base));
    const changed = [
      { offset: 5, length: MIB },
      { offset: 6 * MIB, length: 3 * MIB },
    ];
    const { readBytes, answers } = await send({ assignment, disk: now, changed });
    expect([readBytes, answers]).toEqual([5 * MIB, { want: 1, have: 1, unchanged: 1 }]);
    const { manifest } = await seal(point, { transfers: [{ diskKey: DISK, readBytes, sentBytes: 77 }] });
    expect(manifest.disks[0]).toMatchObject({
      mode: 'cbt',
      baseRoot: full.manifest.disks[0]!.root,
      readBytes: 5 * MIB,
      sentBytes: 77,
      conservation: {
        storedBytes: MIB,
        deduplicatedBytes: MIB,
        zeroBytes: MIB,
        unallocatedBytes: MIB,
        unchangedBytes: 5 * MIB + 1000,
      },
    });
    expect(manifest.baseRestorePointId).toBe(full.restorePointId);
    for (const [point, content] of [
      [full, disk],
      [{ restorePointId: manifest.restorePointId }, now],
    ] as const)
      expect((await handRestore(world, point.restorePointId, DISK)).equals(content)).toBe(true);
  });

  test('what was written before a resume is stored all the same; what an aborted one wrote is deduplicated', async () => {
    const disk = diskOf(70);
    const dead = await openPoint(1);
    await send({ assignment: await assign(dead, planOf(disk.length)), disk, windows: 1 });
    await abort(dead);
    const point = await openPoint(2);
    const assignment = await assign(point, planOf(disk.length));
    // Window 0 is known from the aborted one; window 1 is sent before the restart.
    const { answers } = await send({ assignment, disk, connection: 'first' });
    expect(answers).toEqual({ have: 64, want: 6 });
    await world.reopen({ clean: false });
    const { conservation } = (await seal(point)).manifest.disks[0]!;
    expect(conservation).toMatchObject({ storedBytes: 6 * MIB, deduplicatedBytes: 64 * MIB });
  });

  test('a block that two disks share is stored once', async () => {
    const point = await openPoint(1);
    const disk = diskOf(3);
    for (const key of ['d0', 'd1'])
      await send({ assignment: await assign(point, planOf(3 * MIB, { diskKey: diskKey(key) })), disk });
    const sums = (await seal(point)).manifest.disks.map(({ conservation }) => conservation);
    expect(sums.map((one) => [one.storedBytes, one.deduplicatedBytes])).toEqual([
      [3 * MIB, 0],
      [0, 3 * MIB],
    ]);
  });

  test('nothing is sealed while a window is missing', async () => {
    const point = await openPoint(1);
    const disk = diskOf(130);
    const assignment = await assign(point, planOf(disk.length));
    await expect(seal(point)).rejects.toMatchObject(codes('NOT_CONSERVED', 'window 0'));
    await send({ assignment, disk, windows: 2 });
    await expect(seal(point)).rejects.toMatchObject(codes('NOT_CONSERVED', 'window 2'));
    expect(world.repository.listSealed()).toEqual([]);
    // It goes on: a seal that failed decided nothing.
    await send({ assignment, disk });
    await seal(point);
  });

  test('again gives the same, also after a restart; the open folder is gone', async () => {
    const outcome = await sealedFull(1, diskOf(2));
    const point = { restorePointId: outcome.restorePointId, run: runOf(1) };
    expect(await seal(point, { takenAt: 'another' })).toEqual(outcome);
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
    await world.reopen();
    expect(await seal(point)).toEqual(outcome);
    expect(world.repository.describeSealed(point.restorePointId)).toEqual(outcome);
    expect(world.repository.listOpen()).toEqual([]);
    await expect(seal({ ...point, run: runOf(8) })).rejects.toMatchObject(codes('RESTORE_POINT_NOT_FOUND'));
    expect(() => world.repository.describeSealed(restorePointId('00'.repeat(16)))).toThrow(/no sealed restore point/);
  });

  test('disks of no bytes, and of no blocks at all, are sealed and restored', async () => {
    const point = await openPoint(1);
    await send({ assignment: await assign(point, planOf(0)), disk: Buffer.alloc(0) });
    const { manifest } = await seal(point);
    expect(manifest.disks[0]).toMatchObject({ root: '0'.repeat(64), height: 0, conservation: { sizeBytes: 0 } });
    expect(await handRestore(world, manifest.restorePointId, DISK)).toHaveLength(0);
  });

  test('an increment writes the pages on the way to what changed, no others', async () => {
    const disk = Buffer.alloc(256 * 3 * 256 * 1024);
    for (let at = 0; at < disk.length; at += 256 * 1024) disk.fill(`${at}`, at, at + 256 * 1024);
    const spec = { blockSize: 256 * 1024 };
    const full = await sealedFull(1, disk, spec);
    await world.reopen();
    const before = await pageRecords();
    const point = await openPoint(2, spec);
    const base = { mode: 'cbt' as const, baseRestorePointId: full.restorePointId };
    disk.fill('x', 64 * MIB, 64 * MIB + 10);
    const assignment = await assign(point, planOf(disk.length, base));
    await send({ assignment, disk, changed: [{ offset: 64 * MIB, length: 10 }] });
    await seal(point);
    await world.reopen();
    expect([before, (await pageRecords()) - before]).toEqual([4, 2]);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
  });

  async function pageRecords(): Promise<number> {
    const folder = join(world.folder, 'only-meta');
    await cp(join(world.folder, 'meta'), join(folder, 'meta'), { recursive: true });
    const count = strangerRecords(folder).size;
    await rm(folder, { recursive: true });
    return count;
  }

  test.each([
    ['shrunk to a block border', 70, 64],
    ['grown from a block border', 64, 70],
  ])('a disk that was %s and not touched else is sealed as it is', async (_, before, now) => {
    const full = await sealedFull(1, diskOf(before));
    const disk = Buffer.alloc(now * MIB);
    diskOf(before).copy(disk);
    const point = await openPoint(2);
    const base = { mode: 'cbt' as const, baseRestorePointId: full.restorePointId };
    await send({ assignment: await assign(point, planOf(disk.length, base)), disk, changed: [] });
    const { conservation } = (await seal(point)).manifest.disks[0]!;
    expect(conservation.unchangedBytes).toBe(64 * MIB);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
    expect((await handRestore(world, full.restorePointId, DISK)).equals(diskOf(before))).toBe(true);
  });

  test('what the manifest could not hold is refused by name, and nothing is sealed', async () => {
    const point = await openPoint(1);
    await send({ assignment: await assign(point, planOf(MIB)), disk: diskOf(1) });
    await expect(seal(point, { takenAt: 'x'.repeat(5000) })).rejects.toMatchObject(codes('BAD_REQUEST', 'takenAt'));
    await seal(point);
  });
});

describe('aborting', () => {
  test('is final, idempotent, and leaves the blocks to be found again', async () => {
    const point = await openPoint(1);
    const disk = diskOf(3);
    const assignment = await assign(point, planOf(disk.length));
    await send({ assignment, disk, connection: 'x' });
    expect(await abort(point)).toEqual({ outcome: 'aborted' });
    expect(await abort(point)).toEqual({ outcome: 'aborted' });
    await expect(seal(point)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    await expect(send({ assignment, disk })).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    await expect(assign(point, planOf(disk.length), 2)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
    await world.reopen();
    expect(await abort(point)).toEqual({ outcome: 'aborted' });
    await expect(seal(point)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    const next = await openPoint(2);
    const { answers } = await send({ assignment: await assign(next, planOf(disk.length)), disk });
    expect(answers).toEqual({ have: 3 });
  });

  test('what is sealed stays sealed', async () => {
    const sealed = await sealedFull(1, diskOf(1));
    const point = { restorePointId: sealed.restorePointId, run: runOf(1) };
    expect(await abort(point)).toEqual({ outcome: 'sealed', sealed });
    await world.reopen();
    expect(await abort(point)).toEqual({ outcome: 'sealed', sealed });
    expect(await world.repository.abort({ restorePointId: null, run: runOf(1) })).toEqual({
      outcome: 'sealed',
      sealed,
    });
  });

  test('a run that was never opened is aborted, and its opening refused when it comes', async () => {
    const id = restorePointId('ab'.repeat(16));
    for (const [number, restorePoint] of [
      [1, null],
      [2, id],
      [3, restorePointId('../../etc')],
    ] as const) {
      const of = { restorePointId: restorePoint, run: runOf(number) };
      expect(await world.repository.abort(of)).toEqual({ outcome: 'aborted' });
      expect(await world.repository.abort(of)).toEqual({ outcome: 'aborted' });
      await expect(openPoint(number)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    }
    await world.reopen();
    await expect(openPoint(1)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    expect(await readdir(join(world.folder, 'aborted'))).toHaveLength(3);
  });

  test('another run has no say', async () => {
    const point = await openPoint(1);
    const sealed = await sealedFull(2, diskOf(1));
    for (const { restorePointId: id } of [point, sealed])
      await expect(world.repository.abort({ restorePointId: id, run: runOf(7) })).rejects.toMatchObject(
        codes('RESTORE_POINT_NOT_FOUND'),
      );
    expect(world.repository.listOpen()).toHaveLength(1);
  });

  test('seal and abort at once: exactly one wins, both say which, and it stays so', async () => {
    const winners = new Set<string>();
    for (let number = 1; number <= 12; number += 1) {
      const point = await openPoint(number);
      const disk = diskOf(2);
      await send({ assignment: await assign(point, planOf(disk.length)), disk });
      const sealFirst = number % 2 === 0;
      const sealing = sealFirst ? seal(point) : null;
      const aborting = abort(point);
      const [seals, aborted] = await Promise.all([
        Promise.allSettled([sealing ?? seal(point), seal(point)]),
        Promise.all([aborting, abort(point)]),
      ]);
      const outcome = aborted[0].outcome;
      winners.add(outcome);
      expect(aborted[1].outcome).toBe(outcome);
      for (const one of seals) expect(one.status).toBe(outcome === 'sealed' ? 'fulfilled' : 'rejected');
      const folders = [join('manifests', specOf(point.run).vm.vmId), 'aborted'];
      const there = await Promise.all(
        folders.map(async (folder) =>
          (await readdir(join(world.folder, folder)).catch((): string[] => [])).includes(point.restorePointId),
        ),
      );
      expect(there).toEqual(outcome === 'sealed' ? [true, false] : [false, true]);
    }
    expect(winners).toEqual(new Set(['sealed', 'aborted']));
  });
});

describe('a death over the decision', () => {
  test.each(['sealed', 'aborted'] as const)(
    '%s: the open folder that is left goes at the next start',
    async (outcome) => {
      const point = await openPoint(1);
      await send({ assignment: await assign(point, planOf(MIB)), disk: diskOf(1) });
      const folder = join(world.folder, 'open', point.restorePointId);
      const aside = join(world.folder, 'aside');
      await cp(folder, aside, { recursive: true });
      await (outcome === 'sealed' ? seal(point) : abort(point));
      await cp(aside, folder, { recursive: true });
      await world.reopen();
      expect(world.repository.listOpen()).toEqual([]);
      expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
      expect((await abort(point)).outcome).toBe(outcome);
    },
  );

  test.each(['seal', 'abort'] as const)('a manifest that is there before a %s decides', async (verb) => {
    const point = await openPoint(1);
    await send({ assignment: await assign(point, planOf(MIB)), disk: diskOf(1) });
    const folder = join(world.folder, 'open', point.restorePointId);
    const vmFolder = join(world.folder, 'manifests', specOf(point.run).vm.vmId);
    const [openAside, manifestAside] = [join(world.folder, 'aside'), join(world.folder, 'aside-manifest')];
    await cp(folder, openAside, { recursive: true });
    const sealed = await seal(point);
    await cp(join(vmFolder, point.restorePointId), manifestAside);
    await rm(join(vmFolder, point.restorePointId));
    await cp(openAside, folder, { recursive: true });
    await world.reopen();
    expect(world.repository.listOpen()).toHaveLength(1);
    // As after a link whose last fsync failed: on disk, but not yet known.
    await cp(manifestAside, join(vmFolder, point.restorePointId));
    if (verb === 'seal') expect(await seal(point)).toEqual(sealed);
    else expect(await abort(point)).toEqual({ outcome: 'sealed', sealed });
    expect(await readdir(join(world.folder, 'aborted'))).toEqual([]);
  });

  test('an open restore point whose head never became durable is no restore point', async () => {
    await mkdir(join(world.folder, 'open', 'ab'.repeat(16)));
    await world.reopen();
    expect(world.repository.listOpen()).toEqual([]);
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
  });

  test('damaged documents are left as they are, and hinder nothing else', async () => {
    const sound = await sealedFull(1, diskOf(1));
    const open = join(world.folder, 'open', 'ab'.repeat(16));
    await mkdir(open);
    const files = [
      join(world.folder, 'manifests', 'x'),
      join(world.folder, 'aborted', 'cd'.repeat(16)),
      join(open, 'head'),
    ];
    await mkdir(join(world.folder, 'manifests', 'vm'));
    files[0] = join(world.folder, 'manifests', 'vm', 'ef'.repeat(16));
    for (const file of files) await writeFile(file, 'not what it was');
    await world.reopen();
    expect(world.repository.listSealed()).toMatchObject([sound]);
    for (const file of files) expect((await readdir(join(file, '..'))).length).toBeGreaterThan(0);
    await sealedFull(2, diskOf(2));
  });
});

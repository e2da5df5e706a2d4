/** Collections, one behaviour each; what happens beside sessions is in collect-beside.test.ts. */
import { readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { lineageId } from '../../../schema/domain/ids.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { storageError } from '../storage/files.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { MIB, planOf } from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
const { openPoint, assign, send, seal, sealedFull } = inEachTest(createMaintained, (made) => (world = made));
const remove = (id: Parameters<Maintained['repository']['removeRestorePoint']>[0], last = false) =>
  world.repository.removeRestorePoint(id, { last });

/** Blocks of `disk` that are those of `other`, the first `count`. */
const sharing = (disk: Buffer, other: Buffer, count: number): Buffer =>
  Buffer.concat([other.subarray(0, count * MIB), disk.subarray(count * MIB)]);

const nothing = {
  stopped: null,
  packsTrashed: 0,
  packsRewritten: 0,
  packsMerged: 0,
  rewrittenBytes: 0,
  packsRemoved: 0,
  removedBytes: 0,
  packsRestored: 0,
  packsLocked: 0,
};

test('what is needed stays; epochs grow, also over a restart', async () => {
  const disk = diskOf(5);
  const sealed = await sealedFull(1, disk);
  await world.reopen();
  const before = [world.packs(), world.pagePacks()];
  expect(await world.collect()).toMatchObject({ ...nothing, epoch: 1, deadBytesLeft: 0 });
  await world.reopen();
  expect(await world.collect()).toMatchObject({ ...nothing, epoch: 2, deadBytesLeft: 0 });
  expect([world.packs(), world.pagePacks()]).toEqual(before);
  expect((await world.restore(sealed)).equals(disk)).toBe(true);
});

test('what only a removed restore point needed goes to the trash, and for good after the grace', async () => {
  await sealedFull(1, diskOf(5));
  await world.reopen();
  const dead = [...world.packs(), ...world.pagePacks()];
  const kept = diskOf(4, 'b');
  const [old, sealed] = [world.repository.listSealed()[0]!, await sealedFull(2, kept)];
  await remove(old.restorePointId);
  const report = await world.collect();
  expect(report).toMatchObject({ ...nothing, packsTrashed: 2, deadBytesLeft: 0 });
  expect(report.liveBytes).toBeGreaterThan(0);
  expect(world.trash().filter((name) => dead.some((pack) => name.endsWith(pack)))).toHaveLength(2);
  for (const pack of dead) expect([...world.packs(), ...world.pagePacks()]).not.toContain(pack);
  // The trash of an epoch is known to be complete when the next one begins.
  world.pass(DAY_MS);
  expect(await world.collect()).toMatchObject(nothing);
  world.pass(DAY_MS - 1);
  expect(await world.collect()).toMatchObject(nothing);
  world.pass(1);
  const last = await world.collect();
  expect(last).toMatchObject({ ...nothing, packsRemoved: 2, removedBytes: last.removedBytes });
  expect(last.removedBytes).toBeGreaterThan(100);
  expect(world.trash()).toEqual([]);
  await world.reopen({ loseIndex: true });
  expect((await world.restore(sealed)).equals(kept)).toBe(true);
});

test('a pack that died for the most part is rewritten: the living verbatim, the dead not', async () => {
  const first = diskOf(10);
  await sealedFull(1, first);
  await world.reopen();
  const [pack] = world.packs();
  const kept = sharing(diskOf(10, 'b'), first, 4);
  const sealed = await sealedFull(2, kept);
  await remove(world.repository.listSealed()[0]!.restorePointId);
  const report = await world.collect();
  expect(report).toMatchObject({ stopped: null, packsRewritten: 1, packsTrashed: 2, deadBytesLeft: 0 });
  expect(report.rewrittenBytes).toBeLessThan(report.liveBytes);
  expect(world.packs()).not.toContain(pack);
  expect((await world.restore(sealed)).equals(kept)).toBe(true);
  expect(await world.collect()).toMatchObject({ ...nothing, deadBytesLeft: 0 });
  await world.reopen({ clean: false });
  expect((await world.restore(sealed)).equals(kept)).toBe(true);
});

test('a pack of which little died is left; within the budget the deadest go first', async () => {
  const disks = [diskOf(10), diskOf(10, 'b'), diskOf(10, 'c')];
  for (const [at, disk] of disks.entries()) {
    await sealedFull(at + 1, disk, { lineage: lineageId(`${at}`.repeat(16)) });
    await world.reopen();
  }
  const [a, b, c] = world.repository.listSealed();
  const kept = Buffer.concat([
    disks[0]!.subarray(0, 7 * MIB),
    disks[1]!.subarray(0, 5 * MIB),
    disks[2]!.subarray(0, MIB),
  ]);
  const sealed = await sealedFull(4, kept, { lineage: lineageId('3'.repeat(16)) });
  const packOf = async (disk: Buffer): Promise<string> => {
    const place = await placeOfLast(disk);
    return place.pack;
  };
  const deadest = await packOf(disks[2]!);
  for (const point of [a!, b!, c!]) await remove(point.restorePointId, true);
  const report = await world.collect({ packBudgetBytes: 1 });
  expect(report).toMatchObject({ stopped: null, packsRewritten: 1 });
  expect(report.deadBytesLeft).toBeGreaterThan(0);
  expect(world.packs()).not.toContain(deadest);
  expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 1 });
  const last = await world.collect();
  expect(last).toMatchObject(nothing);
  expect(last.deadBytesLeft).toBeGreaterThan(0);
  expect((await world.restore(sealed)).equals(kept)).toBe(true);

  /** Where the last block of a sealed disk lies. */
  async function placeOfLast(disk: Buffer) {
    const { restoreSource } = world.repository;
    const point = [a!, b!, c!][disks.indexOf(disk)]!;
    const { restorePointId } = point;
    await restoreSource.begin('look', { purpose: 'restore', restorePointId, diskKey: planOf(1).diskKey });
    const { places } = await restoreSource.resolve('look', 0);
    await restoreSource.end('look');
    return places[9]!;
  }
});

describe('small packs are merged', () => {
  /** Of a VM each, so that all can be removed; each has a pack of blocks and one of pages to itself. */
  async function sealedApart(count: number, from = 1) {
    const sealed = [];
    for (let number = from; number < from + count; number += 1) {
      const disk = diskOf(3, `${number} `);
      const lineage = lineageId(String(number).padStart(16, '0'));
      sealed.push({ point: await sealedFull(number, disk, { lineage }), disk });
      await world.reopen();
    }
    return sealed;
  }
  async function expectWhole(sealed: Awaited<ReturnType<typeof sealedApart>>): Promise<void> {
    for (const { point, disk } of sealed) expect((await world.restore(point)).equals(disk)).toBe(true);
  }

  test('those of many sessions become one of blocks and one of pages; what they were goes after the grace', async () => {
    const sealed = await sealedApart(3);
    expect(await world.collect()).toMatchObject({ ...nothing, deadBytesLeft: 0 });
    sealed.push(...(await sealedApart(5, 4)));
    expect([world.packs().length, world.pagePacks().length]).toEqual([8, 8]);
    const report = await world.collect();
    const written = report.rewrittenBytes;
    expect(report).toMatchObject({ ...nothing, packsMerged: 16, packsTrashed: 16, rewrittenBytes: written });
    expect(written).toBeLessThanOrEqual(1.2 * report.liveBytes);
    expect([world.packs().length, world.pagePacks().length]).toEqual([1, 1]);
    await expectWhole(sealed);
    // Alone they stay; so it does where the index is made anew.
    expect(await world.collect()).toMatchObject(nothing);
    world.pass(DAY_MS);
    expect(await world.collect()).toMatchObject({ stopped: null, packsRemoved: 16 });
    expect(world.trash()).toEqual([]);
    await world.reopen({ loseIndex: true });
    await expectWhole(sealed);
  });

  test('a merge is not begun when the budget is spent, and is not cut by it', async () => {
    const sealed = await sealedApart(4);
    expect(await world.collect({ packBudgetBytes: 1 })).toMatchObject({ packsMerged: 4, packsTrashed: 4 });
    expect([world.packs().length, world.pagePacks().length]).toEqual([1, 4]);
    expect(await world.collect({ packBudgetBytes: 1 })).toMatchObject({ packsMerged: 4, packsTrashed: 4 });
    expect([world.packs().length, world.pagePacks().length]).toEqual([1, 1]);
    await expectWhole(sealed);
  });

  test('one that turns out to be damaged stays as it is, and is left alone from then on', async () => {
    await sealedApart(5);
    const [pack] = world.packs();
    const file = join(world.folder, 'packs', pack!.slice(0, 2), pack!);
    const bytes = await readFile(file);
    bytes[64 + 128 + 3] = bytes[64 + 128 + 3]! ^ 1;
    await writeFile(file, bytes);
    expect(await world.collect()).toMatchObject({ stopped: null, packsMerged: 4 + 5 });
    expect(world.packs()).toContain(pack);
    await world.reopen();
    expect(await world.collect()).toMatchObject({ stopped: null, packsMerged: 0, rewrittenBytes: 0 });
    expect(await readFile(file)).toEqual(bytes);
  });

  test('one without a sound footer stays as it is: a scan may find less of it than the index knows', async () => {
    const first = diskOf(3);
    await sealedFull(1, first);
    await world.reopen();
    const [pack] = world.packs();
    // All but its first block are needed still; who wrote them is nobody whom a scan would trust.
    const disk = Buffer.concat([diskOf(1, 'b'), first.subarray(MIB)]);
    const shared = { point: await sealedFull(2, disk, { lineage: lineageId('2'.repeat(16)) }), disk };
    await remove(world.repository.listSealed()[0]!.restorePointId, true);
    const sealed = [...(await sealedApart(6, 3)), shared];
    const file = join(world.folder, 'packs', pack!.slice(0, 2), pack!);
    const bytes = await readFile(file);
    for (const at of [64 + 10, bytes.length - 10]) bytes[at] = bytes[at]! ^ 1;
    await writeFile(file, bytes);
    await expectWhole(sealed);
    for (let times = 0; times < 3; times += 1) {
      expect(await world.collect()).toMatchObject({ stopped: null });
      await expectWhole(sealed);
      world.pass(DAY_MS);
    }
    expect(await readFile(file)).toEqual(bytes);
  });

  test('one that the medium does not give stays, is left alone from then on, and keeps no other from being merged', async () => {
    const sealed = await sealedApart(5);
    const [pack] = world.packs();
    let reads = 0;
    // After its header and the two parts of its footer.
    world.before(
      ({ operation, name }) => operation === 'read' && name.endsWith(pack!) && (reads += 1) === 4,
      () => Promise.reject(storageError(Object.assign(new Error('as planned'), { code: 'EIO' }), pack!)),
    );
    expect(await world.collect()).toMatchObject({ stopped: null, packsMerged: 4 + 5 });
    expect(await world.collect()).toMatchObject({ stopped: null, packsMerged: 0, rewrittenBytes: 0 });
    expect(world.packs()).toContain(pack);
    await expectWhole(sealed);
  });

  test('none that is locked, and none that was closed since the collection began', async () => {
    world.settings.lockDays = 5;
    await world.reopen();
    const sealed = await sealedApart(5);
    const before = world.packs();
    expect(await world.collect()).toMatchObject(nothing);
    expect(world.packs()).toEqual(before);
    world.pass(6 * DAY_MS);
    const disk = diskOf(3, 'late ');
    world.before(
      ({ operation, name }) => operation === 'open' && name.startsWith('packs/'),
      async () => {
        const point = await sealedFull(9, disk, { lineage: lineageId('9'.repeat(16)) });
        await world.sink.close();
        sealed.push({ point, disk });
      },
    );
    expect(await world.collect()).toMatchObject({ stopped: null, packsMerged: 10 });
    // The new one, and the late one.
    expect(world.packs()).toHaveLength(2);
    expect(world.packs().filter((pack) => before.includes(pack))).toEqual([]);
    await expectWhole(sealed);
    // Else its manifest cannot be removed.
    world.pass(6 * DAY_MS);
    await world.collect();
  });
});

test('copies of one record: one stays, the others go', async () => {
  const disk = diskOf(3);
  const [one, two] = [await openPoint(1), await openPoint(2, { lineage: lineageId('f'.repeat(16)) })];
  // Neither knows of the other before it has sent all.
  const sendings = [];
  for (const point of [one, two]) sendings.push(send({ assignment: await assign(point, planOf(disk.length)), disk }));
  await Promise.all(sendings);
  const sealed = [await seal(one), await seal(two)];
  await world.reopen();
  await world.collect();
  await world.reopen();
  await world.collect();
  expect(await world.collect()).toMatchObject({ ...nothing, deadBytesLeft: 0 });
  for (const point of sealed) expect((await world.restore(point)).equals(disk)).toBe(true);
});

describe('in doubt nothing is removed', () => {
  /** A sealed restore point, and one that was removed. */
  async function withSomethingDead() {
    await sealedFull(1, diskOf(5));
    await world.reopen();
    const kept = diskOf(6, 'b');
    const sealed = await sealedFull(2, kept);
    await world.reopen();
    await remove(world.repository.listSealed()[0]!.restorePointId);
    return { sealed, kept };
  }

  test('a manifest that is damaged, then mended', async () => {
    const { sealed } = await withSomethingDead();
    const file = join(world.folder, 'manifests', sealed.manifest.vm.vmId, sealed.restorePointId);
    const text = await readFile(file, 'utf8');
    await writeFile(file, text.replace('full', 'fulL'));
    await world.reopen();
    const before = world.packs();
    expect(await world.collect()).toMatchObject({ ...nothing, stopped: { code: 'REPOSITORY_CORRUPT' } });
    expect(world.packs()).toEqual(before);
    await writeFile(file, text);
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 2 });
  });

  test('a page that cannot be read', async () => {
    await withSomethingDead();
    for (const pack of world.pagePacks()) await truncate(join(world.folder, 'meta', pack.slice(0, 2), pack), 200);
    const before = world.packs();
    expect(await world.collect()).toMatchObject({ ...nothing, stopped: { code: 'DAMAGED_BLOCK' } });
    expect(world.packs()).toEqual(before);
  });

  test('an open restore point whose head is damaged', async () => {
    await withSomethingDead();
    const open = await openPoint(3);
    await writeFile(join(world.folder, 'open', open.restorePointId, 'head'), 'not what it was');
    await world.reopen();
    expect(await world.collect()).toMatchObject({ ...nothing, stopped: { code: 'REPOSITORY_CORRUPT' } });
  });

  test('clocks that disagree: what is in the trash stays there, and its grace begins when they agree', async () => {
    const { sealed, kept } = await withSomethingDead();
    await world.collect();
    world.clocks.host += 3650 * DAY_MS;
    for (let times = 0; times < 3; times += 1)
      expect(await world.collect()).toMatchObject({ ...nothing, stopped: { code: 'CLOCK_IN_DOUBT' } });
    await world.reopen();
    world.clocks.host = world.clocks.server = world.clocks.server! + 30 * DAY_MS;
    expect(await world.collect()).toMatchObject(nothing);
    world.pass(DAY_MS);
    expect(await world.collect()).toMatchObject({ stopped: null, packsRemoved: 2 });
    expect((await world.restore(sealed)).equals(kept)).toBe(true);
  });

  test('a state that is lost or damaged: nothing in the trash is older than the next sure epoch', async () => {
    await withSomethingDead();
    await world.collect();
    world.pass(10 * DAY_MS);
    await world.collect();
    for (const spoil of [(file: string) => rm(file), (file: string) => writeFile(file, 'not what it was')]) {
      await spoil(join(world.folder, 'state'));
      world.pass(10 * DAY_MS);
      await world.reopen();
      expect(await world.collect()).toMatchObject({ ...nothing, epoch: expect.any(Number) as number });
      expect(world.trash()).not.toEqual([]);
    }
    world.pass(DAY_MS);
    expect(await world.collect()).toMatchObject({ packsRemoved: 2 });
  });
});

test('a damaged record that is needed: its pack stays as it is', async () => {
  const first = diskOf(10);
  await sealedFull(1, first);
  await world.reopen();
  const [pack] = world.packs();
  const file = join(world.folder, 'packs', pack!.slice(0, 2), pack!);
  await sealedFull(2, sharing(diskOf(10, 'b'), first, 3));
  await remove(world.repository.listSealed()[0]!.restorePointId);
  const bytes = await readFile(file);
  bytes[64 + 128 + 3] = bytes[64 + 128 + 3]! ^ 1;
  await writeFile(file, bytes);
  await world.reopen();
  expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 0 });
  expect(world.packs()).toContain(pack);
  expect(await readFile(file)).toEqual(bytes);
});

test('it ends between two packs when it is told to, and a second one waits for the first', async () => {
  await sealedFull(1, diskOf(3));
  const ended = new AbortController();
  ended.abort(new Error('enough'));
  await expect(world.collect({ signal: ended.signal })).rejects.toThrow('enough');
  const [first, second] = await Promise.all([world.collect(), world.collect()]);
  expect(new Set([first.epoch, second.epoch])).toEqual(new Set([2, 3]));
  const running = expect(world.collect()).rejects.toMatchObject({ code: 'HOST_DRAINING' });
  await world.repository.close();
  await running;
  await expect(world.collect()).rejects.toMatchObject({ code: 'HOST_DRAINING' });
});

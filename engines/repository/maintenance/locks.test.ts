/** Locks: for their period nobody removes, moves or rewrites what a restore point is made of, whatever clocks show. */
import { execFileSync } from 'node:child_process';
import { rm, unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { lineageId, type RestorePointId } from '../../../schema/domain/ids.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { MIB, type TestRepositoryOptions } from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf, verbsOf } from '../../../tests/fixtures/repository/verbs.ts';
import { nodeFileSystem } from '../storage/file-system.ts';

const YEARS = 3650 * DAY_MS;
let world: Maintained;
const { sealedFull } = verbsOf(() => world);
const held = expect.objectContaining({ code: 'RESTORE_POINT_HELD' }) as Error;
const remove = (id: RestorePointId) => world.repository.removeRestorePoint(id, { last: true });

async function open(options: TestRepositoryOptions['open'] = { lockDays: 30 }): Promise<void> {
  world = await createMaintained(options);
}
afterEach(async () => {
  await world.storage.store.protect(
    [...(await world.storage.store.list('packs')), ...(await world.storage.store.list('meta'))],
    false,
  );
  await world.storage.store.protect(await world.storage.store.list('manifests'), false);
  await world.close();
});

test('from the seal for the whole period, by repository time', async () => {
  await open();
  const { restorePointId: id } = await sealedFull(1, diskOf(2));
  const lockedUntil = new Date(world.clocks.host + 30 * DAY_MS).toISOString();
  expect(world.repository.listSealed()).toMatchObject([{ flags: { lockedUntil } }]);
  for (let day = 0; day < 30; day += 10) {
    await expect(remove(id)).rejects.toEqual(held);
    await world.reopen();
    expect(world.repository.flagsOf(id)).toMatchObject({ lockedUntil });
    world.pass(10 * DAY_MS - 1);
  }
  await expect(remove(id)).rejects.toEqual(held);
  world.pass(3);
  await remove(id);
});

describe('no clock shortens a lock', () => {
  test.each([
    ['the host is set ten years ahead', (clocks: Maintained['clocks']) => (clocks.host += YEARS)],
    ['the host is set ten years back', (clocks: Maintained['clocks']) => (clocks.host -= YEARS)],
    ['the server is set ten years ahead', (clocks: Maintained['clocks']) => (clocks.server! += YEARS)],
    ['both are set ten years back', (clocks: Maintained['clocks']) => (clocks.host = clocks.server! -= YEARS)],
    [
      'there is no server, and the host is set ahead',
      (c: Maintained['clocks']) => ((c.server = null), (c.host += YEARS)),
    ],
  ])('%s, while it is open and while it is closed', async (_, set) => {
    await open();
    const { restorePointId: id } = await sealedFull(1, diskOf(2));
    const sound = { ...world.clocks };
    set(world.clocks);
    await expect(remove(id)).rejects.toEqual(held);
    expect(await world.collect()).toMatchObject({ packsTrashed: 0, packsRemoved: 0 });
    await world.reopen();
    await expect(remove(id)).rejects.toEqual(held);
    // Nor does it become longer, once the clocks are right.
    Object.assign(world.clocks, sound);
    world.pass(30 * DAY_MS);
    await remove(id);
  });

  test('sealed while the clocks are in doubt: the period begins when they are not', async () => {
    await open();
    await sealedFull(1, diskOf(1));
    const start = world.clocks.host;
    world.clocks.host -= YEARS;
    const { restorePointId: id } = await sealedFull(2, diskOf(2, 'b'));
    world.clocks.host = world.clocks.server = start + 40 * DAY_MS;
    await expect(remove(id)).rejects.toEqual(held);
    await world.collect();
    world.pass(30 * DAY_MS - 1);
    await expect(remove(id)).rejects.toEqual(held);
    world.pass(1);
    await remove(id);
  });

  test('nor does a state that is lost', async () => {
    await open();
    const { restorePointId: id } = await sealedFull(1, diskOf(2));
    await rm(join(world.folder, 'state'), { force: true });
    world.clocks.server = null;
    world.clocks.host += YEARS;
    await world.reopen();
    await expect(remove(id)).rejects.toEqual(held);
  });
});

test('a shorter period, or none, is one for new restore points only', async () => {
  await open();
  const { restorePointId: locked } = await sealedFull(1, diskOf(1));
  world.settings.lockDays = 0;
  world.pass(DAY_MS);
  await world.reopen();
  const { restorePointId: free } = await sealedFull(2, diskOf(1, 'b'));
  await expect(remove(locked)).rejects.toEqual(held);
  await remove(free);
});

test('packs that a locked restore point needs are left whole, and are rewritten after it', async () => {
  await open();
  const first = diskOf(10);
  const old = await sealedFull(1, first);
  await world.reopen();
  const packs = world.packs();
  world.pass(20 * DAY_MS);
  const kept = Buffer.concat([first.subarray(0, 2 * MIB), diskOf(2, 'b')]);
  const locked = await sealedFull(2, kept, { lineage: lineageId('f'.repeat(16)) });
  world.pass(11 * DAY_MS);
  await remove(old.restorePointId);
  const report = await world.collect();
  expect(report).toMatchObject({ stopped: null, packsRewritten: 0, packsLocked: 1 });
  expect(report.deadBytesLeft).toBeGreaterThan(0);
  expect(world.packs()).toEqual(expect.arrayContaining(packs));
  world.pass(20 * DAY_MS);
  expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 1, packsLocked: 0, deadBytesLeft: 0 });
  expect((await world.restore(locked)).equals(kept)).toBe(true);
});

/** Whether this file system has the attribute, and we may set it. */
async function canProtect(): Promise<boolean> {
  const file = join(world.folder, 'probe');
  await writeFile(file, '');
  const can = await nodeFileSystem.setImmutable([file], true);
  await nodeFileSystem.setImmutable([file], false);
  return can;
}
const isImmutable = (file: string): boolean =>
  execFileSync('lsattr', ['-d', file]).toString().split(' ')[0]!.includes('i');

test('where the file system can, files of what is locked are immutable, and are free again afterwards', async ({
  skip,
}) => {
  await open();
  skip(!(await canProtect()), 'this file system, or this user, cannot');
  const locked = await sealedFull(1, diskOf(3));
  await world.reopen();
  const manifest = join(world.folder, 'manifests', locked.manifest.vm.vmId, locked.restorePointId);
  expect(isImmutable(manifest)).toBe(true);
  const packs = (await world.storage.store.list('packs')).map((name) => join(world.folder, name));
  await world.collect();
  expect(packs.map(isImmutable)).toEqual([true]);
  for (const file of [packs[0]!, manifest]) await expect(unlink(file)).rejects.toMatchObject({ code: 'EPERM' });
  world.pass(30 * DAY_MS);
  await world.collect();
  expect([manifest, ...packs].map(isImmutable)).toEqual([false, false]);
  await sealedFull(2, diskOf(3, 'b'));
  await remove(locked.restorePointId);
  expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 2 });
});

/** Packs, manifests and whole disks that come and go while maintenance runs: nothing is forgotten over it, nothing called sound. */
import { readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { lineageId, vmId } from '../../../schema/domain/ids.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { flipBit, packPath, placeOfBlock, rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { planOf, runOf, specOf } from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
const { openPoint, assign, send, seal, sealedFull, check, repair } = inEachTest(
  createMaintained,
  (made) => (world = made),
);

const other = { vm: { ...specOf(runOf(2)).vm, vmId: vmId('other') }, lineage: lineageId('0f'.repeat(8)) };

test('damage in a pack that is closed while a check runs is not forgotten, and the next session heals it', async () => {
  const disk = diskOf(3);
  const sealed = await sealedFull(1, disk);
  const place = await placeOfBlock(world, sealed.restorePointId, 1);
  await flipBit(join(world.folder, 'open/packs', place.pack), place.offset + RECORD_HEADER_BYTES + 1);
  await expect(world.restore(sealed)).rejects.toMatchObject({ code: 'DAMAGED_BLOCK' });
  // Neither among the closed ones at the beginning nor among the open ones at the end.
  world.before(
    ({ operation, name }) => operation === 'list' && name === 'open/packs',
    () => world.sink.close(),
  );
  expect(await check({ depth: 'quick' })).toMatchObject({ marked: [sealed.restorePointId] });
  await world.reopen();
  expect(await check({ depth: 'quick' })).toMatchObject({ marked: [sealed.restorePointId], healed: [] });
  const point = await openPoint(5);
  expect(await send({ assignment: await assign(point, planOf(disk.length)), disk })).toMatchObject({
    answers: { want: 1 },
  });
  expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
});

test('flags of a restore point outlive the time in which its manifest could not be read', async () => {
  const { restorePointId: id, manifest } = await sealedFull(1, diskOf(2));
  await world.repository.setFlags(id, { hold: 'court' });
  await sealedFull(2, diskOf(2, 'b'), other);
  const path = join(world.folder, 'manifests', manifest.vm.vmId, id);
  const good = await readFile(path);
  await writeFile(path, 'x');
  await world.reopen();
  expect(await world.collect()).toMatchObject({ stopped: { code: 'REPOSITORY_CORRUPT' } });
  await writeFile(path, good);
  // It is there again at once, and looked at like any other.
  expect(await check()).toMatchObject({ restorePoints: 2, damages: [] });
  expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 0 });
  await world.reopen();
  await expect(world.repository.removeRestorePoint(id, { last: true })).rejects.toMatchObject({
    code: 'RESTORE_POINT_HELD',
  });
});

test('a pack that vanishes while a check reads is missed by that very check', async () => {
  const sealed = await sealedFull(1, diskOf(2));
  await world.reopen();
  const { pack } = await placeOfBlock(world, sealed.restorePointId, 1);
  let looks = 0;
  // It was seen to be there; now it is to be read.
  world.before(
    ({ operation, name }) => operation === 'open' && name.endsWith(pack) && (looks += 1) === 2,
    () => rm(packPath(world, pack)),
  );
  expect(await check()).toMatchObject({ marked: [sealed.restorePointId] });
});

test('every part of a check in parts sees that a pack is gone, whichever it reads', async () => {
  const first = await sealedFull(1, diskOf(2));
  await world.reopen();
  for (const [number, content] of [
    [2, 'b'],
    [3, 'c'],
  ] as const) {
    await sealedFull(number, diskOf(2, content), { ...other, lineage: lineageId(`0${number}`.repeat(8)) });
    await world.reopen();
  }
  const place = await placeOfBlock(world, first.restorePointId, 1);
  expect(await check({ maxBytes: 1 })).toMatchObject({ whole: false, damages: [] });
  await rm(packPath(world, place.pack));
  expect(await check({ maxBytes: 1 })).toMatchObject({ marked: [first.restorePointId] });
});

test('what a repair has replaced is not brought back by collections, and kept for as long as it is missed', async () => {
  const sealed = await sealedFull(1, diskOf(3));
  await world.reopen();
  await rotBlock(world, sealed.restorePointId, 1);
  await check();
  expect(await repair()).toMatchObject({ packsSalvaged: 1 });
  const packs = world.packs();
  for (let times = 0; times < 3; times += 1) {
    world.pass(2 * DAY_MS);
    expect(await world.collect()).toMatchObject({ stopped: null, packsRestored: 0, packsRemoved: 0 });
  }
  expect(world.packs()).toEqual(packs);
  expect(world.trash()).toHaveLength(1);
  await world.repository.removeRestorePoint(sealed.restorePointId, { last: true });
  for (let times = 0; times < 3; times += 1) {
    world.pass(2 * DAY_MS);
    await world.collect();
  }
  expect(world.trash()).toEqual([]);
});

test('an empty folder where a repository was is not taken for a new one', async () => {
  await sealedFull(1, diskOf(1));
  await world.sink.close();
  await world.repository.close();
  await rm(world.folder, { recursive: true });
  await expect(world.reopen()).rejects.toMatchObject({
    code: 'REPOSITORY_NOT_ONE',
    message: expect.stringMatching(/is its disk mounted\? To begin with a new one, remove /),
  });
  await world.reopen({ loseIndex: true });
});

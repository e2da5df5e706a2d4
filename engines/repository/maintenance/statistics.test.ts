import { expect, test } from 'vitest';
import { lineageId, vmId } from '../../../schema/domain/ids.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { MIB, planOf, runOf, specOf } from '../../../tests/fixtures/repository/test-repository.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { openStorage } from '../storage/storage.ts';
import { listClosedPacks, readClosedPack } from '../pack/pack-reader.ts';

let world: Maintained;
const { openPoint, assign, send, seal } = inEachTest(createMaintained, (made) => (world = made));

const vms = ['vm-a', 'vm-b', 'vm-c'];
const ofVm = (vm: number) => ({
  vm: { ...specOf(runOf(1)).vm, vmId: vmId(vms[vm]!) },
  vmName: `name of ${vms[vm]}`,
  lineage: lineageId(`${vm}`.repeat(16)),
});

/** Blocks by number; 0 is a block of zeros. */
const diskOf = (blocks: readonly number[]): Buffer =>
  Buffer.concat(blocks.map((block) => Buffer.alloc(MIB, block === 0 ? 0 : `block ${block} of all `)));

async function sealed(number: number, vm: number, blocks: readonly number[]): Promise<SealOutcome> {
  const point = await openPoint(number, ofVm(vm));
  const disk = diskOf(blocks);
  await send({ assignment: await assign(point, planOf(disk.length)), disk });
  return seal(point);
}

/** Bytes that each block takes in its pack, by hex digest. */
async function storedBytes(): Promise<Map<string, number>> {
  await world.reopen();
  const stored = new Map<string, number>();
  const storage = openStorage({ kind: 'folder', folder: world.folder });
  const uuid = (await readdirUuid()).uuid;
  for (const name of await listClosedPacks(storage))
    for (const { header } of (await readClosedPack(storage, uuid, name, world.seams.log))!.records)
      stored.set(Buffer.from(header.id).toString('hex'), RECORD_HEADER_BYTES + header.storedLength);
  return stored;
}
const readdirUuid = async (): Promise<{ uuid: string }> =>
  JSON.parse((await world.storage.staging.readText('repository.json', 65_536))!) as { uuid: string };

test('every figure is that of a count by hand, over many shapes of sharing', async () => {
  const { next, seed } = seeded();
  const points: { vm: number; blocks: number[]; sealed: SealOutcome }[] = [];
  for (let number = 1; number <= 9; number += 1) {
    const vm = next(3);
    const own = points.filter((point) => point.vm === vm).at(-1)?.blocks ?? [];
    const blocks = Array.from({ length: 3 + next(4) }, (_, at) => (next(3) > 0 ? (own[at] ?? next(12)) : next(12)));
    points.push({ vm, blocks, sealed: await sealed(number, vm, blocks) });
  }
  const stored = await storedBytes();
  const sizeOf = (block: number): number => stored.get(digestOf(diskOf([block])).toString('hex'))!;
  const sum = (blocks: Iterable<number>, of: (block: number) => number): number =>
    [...blocks].filter((block) => block !== 0).reduce((total, block) => total + of(block), 0);
  const usersOf = (block: number) => points.filter(({ blocks }) => blocks.includes(block));
  const onlyOf = (vm: number) => (block: number) => usersOf(block).every((user) => user.vm === vm);
  const statistics = await world.repository.statistics();
  const all = new Set(points.flatMap(({ blocks }) => blocks));
  const note = `seed ${seed}`;
  expect(statistics, note).toMatchObject({
    restorePoints: 9,
    logicalBytes: sum(
      points.flatMap(({ blocks }) => blocks),
      () => MIB,
    ),
    deduplicatedBytes: sum(all, () => MIB),
    storedBytes: sum(all, sizeOf),
    deadBytes: null,
    trashBytes: 0,
  });
  for (const { vmId: id, name, ...figures } of statistics.byVm) {
    const vm = vms.indexOf(id);
    const own = points.filter((point) => point.vm === vm);
    const blocks = new Set(own.flatMap((point) => point.blocks));
    expect(name).toBe(`name of ${id}`);
    expect(figures, note).toEqual({
      restorePoints: own.length,
      logicalBytes: sum(
        own.flatMap((point) => point.blocks),
        () => MIB,
      ),
      storedBytes: sum(blocks, sizeOf),
      uniqueBytes: sum([...blocks].filter(onlyOf(vm)), sizeOf),
    });
  }
  for (const point of points)
    expect(await world.repository.statisticsOf(point.sealed.restorePointId), note).toEqual({
      logicalBytes: sum(point.blocks, () => MIB),
      storedBytes: sum(point.blocks, sizeOf),
      uniqueBytes: sum(
        [...new Set(point.blocks)].filter((block) => usersOf(block).length === 1),
        sizeOf,
      ),
    });
});

test('what is dead and what is in the trash, once a collection has said so', async () => {
  const first = await sealed(1, 0, [1, 2, 3]);
  await sealed(2, 0, [1]);
  await world.reopen();
  expect(await world.repository.statistics()).toMatchObject({ restorePoints: 2, deadBytes: null, trashBytes: 0 });
  await world.repository.removeRestorePoint(first.restorePointId);
  expect(await world.repository.statistics()).toMatchObject({ restorePoints: 1, deduplicatedBytes: MIB });
  await world.collect();
  const { deadBytes, trashBytes, freeBytes } = await world.repository.statistics();
  expect([typeof deadBytes, trashBytes > 0, freeBytes! > 0]).toEqual(['number', true, true]);
  await expect(world.repository.statisticsOf(first.restorePointId)).rejects.toMatchObject({
    code: 'RESTORE_POINT_NOT_FOUND',
  });
});

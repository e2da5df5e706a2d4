import { expect, test } from 'vitest';
import { hostId } from '../../../schema/domain/ids.ts';
import type { DiskPlan, SealOutcome } from '../../../schema/domain/restore-point.ts';
import { handComparison, windowDigestOf } from '../../../tests/fixtures/repository/hand-comparison.ts';
import { rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
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
/** A window and a bit, with zeros and a short end in the second. */
const before = (): Buffer => diskOf(70, 'a', 700).fill(0, 66 * MIB, 68 * MIB);
const comparison = (base: SealOutcome, sizeBytes: number, change: Partial<DiskPlan> = {}): DiskPlan =>
  planOf(sizeBytes, { mode: 'comparison', baseRestorePointId: base.restorePointId, ...change });

/** A session that compares `disk`: the windows that were as in the base, and what came of it. */
async function compared(base: SealOutcome, disk: Buffer, of: { plan?: Partial<DiskPlan>; host?: string } = {}) {
  const vm = { ...specOf(runOf(2)).vm, ...(of.host ? { hostId: hostId(of.host) } : {}) };
  const point = await openPoint(2, { vm });
  const assignment = await assign(point, comparison(base, disk.length, of.plan));
  const { registrar } = world.repository;
  const same = await handComparison({ registrar, sink: world.sink, assignment, disk });
  // Windows that were never offered are as durable as others.
  await world.reopen({ clean: false });
  const sealed = await seal(point);
  expect((await handRestore(world, sealed.restorePointId, DISK)).equals(disk)).toBe(true);
  const [{ root, conservation }] = sealed.manifest.disks as [SealOutcome['manifest']['disks'][number]];
  return { same, comparableBytes: assignment.comparableBytes, root, conservation };
}

test('a disk as it was: each window by one digest, and the very same map', async () => {
  const base = await sealedFull(1, before());
  const { same, root, conservation } = await compared(base, before());
  expect([same, root]).toEqual([[0, 1], base.manifest.disks[0]!.root]);
  expect(conservation).toMatchObject({ unchangedBytes: before().length, storedBytes: 0, zeroBytes: 0 });
});

test('a window with one changed block is not the same, the others are', async () => {
  const base = await sealedFull(1, before());
  const disk = before().fill('x', 65 * MIB, 65 * MIB + 1);
  const { same, conservation } = await compared(base, disk);
  expect([same, conservation.storedBytes]).toEqual([[0], MIB]);
});

test('of a disk that grew from within a block the old windows are compared', async () => {
  const base = await sealedFull(1, before());
  const disk = Buffer.concat([before(), diskOf(7, 'g', 12345)]);
  const { same, comparableBytes, conservation } = await compared(base, disk);
  expect([same, comparableBytes]).toEqual([[0], 69 * MIB]);
  expect(conservation.unchangedBytes).toBe(69 * MIB);
});

test('of a disk that shrank to within a block the last window is not', async () => {
  const base = await sealedFull(1, before());
  const disk = before().subarray(0, 65 * MIB + 5);
  const { same, comparableBytes, conservation } = await compared(base, disk);
  expect([same, comparableBytes]).toEqual([[0], 65 * MIB]);
  expect(conservation).toMatchObject({ unchangedBytes: 65 * MIB, storedBytes: 5 });
});

test('a disk that was made anew, on a VM that has moved, is compared with what was in its place', async () => {
  const base = await sealedFull(1, before());
  const disk = diskOf(70, 'n', 700);
  before().copy(disk, 64 * MIB, 64 * MIB);
  const { same, conservation } = await compared(base, disk, { plan: { identity: 'another' }, host: 'h2' });
  expect([same, conservation.unchangedBytes]).toEqual([[1], disk.length - 64 * MIB]);
});

test('a window of which the base has lost a block is offered, and heals', async () => {
  const base = await sealedFull(1, before());
  await world.reopen();
  await rotBlock(world, base.restorePointId, 3);
  await expect(handRestore(world, base.restorePointId, DISK)).rejects.toMatchObject({ code: 'DAMAGED_BLOCK' });
  const { same, conservation } = await compared(base, before());
  expect([same, conservation.unchangedBytes]).toEqual([[1], before().length]);
  expect((await handRestore(world, base.restorePointId, DISK)).equals(before())).toBe(true);
});

test('sums that are not those of the window, another fence and a full are refused or not the same', async () => {
  const base = await sealedFull(1, before());
  const point = await openPoint(2);
  const { registrar } = world.repository;
  const begin = async (plan: DiskPlan, number: number) =>
    registrar.begin('c', { purpose: 'backup', ...(await assign(point, plan, number)) });
  await begin(comparison(base, before().length), 1);
  const { digest, sums } = windowDigestOf(before(), MIB, 1);
  const wrong = { ...sums, zeroBytes: sums.zeroBytes - MIB, dataBytes: sums.dataBytes + MIB };
  await expect(registrar.commitSame('c', 1, digest, wrong)).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
  await expect(registrar.commitSame('c', 2, digest, sums)).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
  expect(await registrar.commitSame('c', 0, digest, sums)).toBe(false);
  await assign(point, comparison(base, before().length), 2);
  await expect(registrar.commitSame('c', 1, digest, sums)).rejects.toMatchObject({ code: 'FENCED' });
  await begin(planOf(before().length), 3);
  expect(await registrar.commitSame('c', 1, digest, sums)).toBe(false);
  await registrar.end('c');
  await send({ assignment: await assign(point, planOf(before().length), 4), disk: before() });
  expect((await seal(point)).manifest.disks[0]!.mode).toBe('full');
});

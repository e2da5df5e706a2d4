import { beforeEach, describe, expect, test } from 'vitest';
import { lineageId } from '../../../schema/domain/ids.ts';
import type { DiskPlan, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { Extent } from '../../../schema/domain/extents.ts';
import { type HandAudit, answersOf, handAudit } from '../../../tests/fixtures/repository/hand-audit.ts';
import { handRestore } from '../../../tests/fixtures/repository/hand-restore.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import {
  createTestRepository,
  DISK,
  MIB,
  planOf,
  type TestRepository,
} from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf, type Point } from '../../../tests/fixtures/repository/verbs.ts';

let world: TestRepository;
const { openPoint, assign, send, seal, sealedFull } = inEachTest(createTestRepository, (made) => (world = made));
const extentOf = (block: number): Extent => ({ offset: block * MIB, length: 1 });
const cbtOn = (base: SealOutcome, sizeBytes: number): DiskPlan =>
  planOf(sizeBytes, { mode: 'cbt', baseRestorePointId: base.restorePointId });
const audit = (of: Omit<HandAudit, 'registrar'>) => handAudit({ registrar: world.repository.registrar, ...of });
const begun = (assignment: HandAudit['assignment']) =>
  world.repository.registrar.begin('look', { purpose: 'backup', ...assignment });
const stateOf = (of: SealOutcome) => world.repository.markOf(of.restorePointId)?.state ?? 'good';

/** An increment of `disk`, audited; `changed`: blocks that tracking reports. */
async function increment(number: number, base: SealOutcome, disk: Buffer, changed: number[]) {
  const point = await openPoint(number);
  const assignment = await assign(point, cbtOn(base, disk.length));
  const of = { assignment, disk, changed: changed.map(extentOf) };
  const audited = await audit(of);
  await send(of);
  return { ...audited, sealed: await seal(point) };
}

/** The disk with these blocks written anew. */
function written(disk: Buffer, blocks: number[], seed: string): Buffer {
  const next = Buffer.from(disk);
  for (const block of blocks) next.fill(`${seed}${block} `, block * MIB, Math.min(disk.length, (block + 1) * MIB));
  return next;
}

const upTo = (count: number, from = 0): number[] => Array.from({ length: count }, (_, at) => from + at);

test('what tracking reports rightly passes, is in the manifest, and is not asked again after a restart', async () => {
  // Zeros and a short end are compared as well.
  const disk = diskOf(70, 'a', 700).fill(0, 5 * MIB, 9 * MIB);
  const full = await sealedFull(1, disk);
  const after = written(disk, [3, 69], 'b');
  const point = await openPoint(2);
  const assignment = await assign(point, cbtOn(full, disk.length));
  expect((await begun(assignment)).auditDue).toBe(true);
  const { asked, audited, wanted } = await audit({ assignment, disk: after, changed: [3, 69].map(extentOf) });
  expect([audited, wanted, new Set(asked).size]).toEqual([64, 64, asked.length]);
  expect((await begun(assignment)).auditDue).toBe(false);
  await world.reopen({ clean: false });
  const again = await assign(point, cbtOn(full, disk.length), 2);
  expect((await begun(again)).auditDue).toBe(false);
  await send({ assignment: again, disk: after, changed: [3, 69].map(extentOf) });
  expect((await seal(point)).manifest.disks).toMatchObject([{ mode: 'cbt', audit: { sampled: 64, mismatched: 0 } }]);
  expect([stateOf(full), (await handRestore(world, point.restorePointId, DISK)).equals(after)]).toEqual(['good', true]);
});

test('a disk that is read in another way has none', async () => {
  const full = await sealedFull(1, diskOf(2));
  expect(full.manifest.disks[0]!.audit).toEqual({ sampled: 0, mismatched: 0 });
  const point = await openPoint(2);
  const plan = planOf(2 * MIB, { mode: 'comparison', baseRestorePointId: full.restorePointId });
  expect((await begun(await assign(point, plan))).auditDue).toBe(false);
  await expect(world.repository.registrar.beginAudit('look', 0)).rejects.toMatchObject({ code: 'PROTOCOL_ERROR' });
});

describe('a bitmap that lost bits', () => {
  let disk: Buffer;
  let points: SealOutcome[];
  /** Of 100 blocks 50 have changed, and none is reported: 64 samples cannot all pass by. */
  const lost = upTo(50, 20);
  let now: Buffer;
  let point: Point;
  beforeEach(async () => {
    disk = diskOf(100);
    points = [await sealedFull(1, disk)];
    for (const number of [2, 3]) {
      disk = written(disk, [number], 'c');
      points.push((await increment(number, points.at(-1)!, disk, [number])).sealed);
    }
    now = written(disk, [1, ...lost], 'd');
    point = await openPoint(9);
  });
  const of = (assignment: HandAudit['assignment']) => ({ assignment, disk: now, changed: [1].map(extentOf) });
  const assignCbt = (number = 1) => assign(point, cbtOn(points.at(-1)!, now.length), number);
  const found = {
    code: 'AUDIT_MISMATCH',
    message: expect.stringContaining('restore points marked suspect: 2') as string,
  };

  test('is found; what rests on tracking is suspect, back to what was read whole; a comparison gives a good restore point', async () => {
    await expect(audit(of(await assignCbt()))).rejects.toMatchObject(found);
    expect(points.map(stateOf)).toEqual(['good', 'suspect', 'suspect']);
    const plan = planOf(now.length, { mode: 'comparison', baseRestorePointId: points.at(-1)!.restorePointId });
    const assignment = await assign(point, plan, 2);
    expect(await begun(assignment)).toMatchObject({ lowWater: 0, auditDue: false });
    await send({ assignment, disk: now });
    const sealed = await seal(point);
    expect((await handRestore(world, sealed.restorePointId, DISK)).equals(now)).toBe(true);
    const { mode, audit: told, conservation } = sealed.manifest.disks[0]!;
    expect([mode, conservation.storedBytes]).toEqual(['comparison', 51 * MIB]);
    expect(told).toMatchObject({ sampled: 64, firstMismatch: expect.any(Number) as number });
    expect(told.mismatched).toBeGreaterThan(0);
    expect(lost).toContain(told.firstMismatch);
    // From here the next one is good again, and a later mismatch stops here.
    expect(stateOf(sealed)).toBe('good');
    const listed = world.repository.listSealed().map(({ mark }) => mark?.why.code ?? null);
    expect(listed).toEqual([null, 'AUDIT_MISMATCH', 'AUDIT_MISMATCH', null]);
  });

  test('is known after a restart, to whoever tries again in the same way', async () => {
    const given = await assignCbt();
    await expect(audit(of(given))).rejects.toMatchObject(found);
    await world.reopen({ clean: false });
    expect((await begun(given)).auditDue).toBe(true);
    await expect(world.repository.registrar.beginAudit('look', 0)).rejects.toMatchObject(found);
    expect(points.map(stateOf)).toEqual(['good', 'suspect', 'suspect']);
    await expect(assignCbt(2)).rejects.toMatchObject({ code: 'TRACKING_LOST' });
  });

  // The next one would draw other blocks, and with luck find them as they were.
  test('is not forgotten with the run that found it: none builds on it until a comparison is sealed', async () => {
    await expect(audit(of(await assignCbt()))).rejects.toMatchObject(found);
    await world.repository.abort(point);
    for (const restart of [false, true]) {
      if (restart) await world.reopen({ clean: false });
      point = await openPoint(restart ? 11 : 10);
      await expect(assignCbt()).rejects.toMatchObject({
        code: 'TRACKING_LOST',
        message: expect.stringContaining('an audit found') as string,
      });
      if (!restart) await world.repository.abort(point);
    }
    const plan = planOf(now.length, { mode: 'comparison', baseRestorePointId: points.at(-1)!.restorePointId });
    await send({ assignment: await assign(point, plan, 2), disk: now });
    const sealed = await seal(point);
    point = await openPoint(12);
    expect(await assign(point, cbtOn(sealed, now.length))).toMatchObject({ mode: 'cbt' });
  });

  test('is not forgotten where the base is whole, and stays good', async () => {
    const full = await sealedFull(20, disk, { lineage: lineageId('abababababababab') });
    point = await openPoint(21, { lineage: lineageId('abababababababab') });
    await expect(audit(of(await assign(point, cbtOn(full, now.length))))).rejects.toMatchObject({
      code: 'AUDIT_MISMATCH',
    });
    expect(stateOf(full)).toBe('good');
    await expect(assign(point, cbtOn(full, now.length), 2)).rejects.toMatchObject({ code: 'TRACKING_LOST' });
  });

  test('marks those in the trash too: brought back, they are suspect', async () => {
    await world.repository.removeRestorePoint(points[1]!.restorePointId);
    await expect(audit(of(await assignCbt()))).rejects.toMatchObject(found);
    await world.repository.restoreFromTrash(points[1]!.restorePointId);
    expect(points.map(stateOf)).toEqual(['good', 'suspect', 'suspect']);
  });

  test('whoever is killed in an audit is asked for the same blocks again', async () => {
    const first = await audit({ ...of(await assignCbt()), steps: 0 });
    await world.reopen({ clean: false });
    const second = await audit({ ...of(await assignCbt(2)), steps: 0 });
    expect([second.asked, points.map(stateOf)]).toEqual([first.asked, ['good', 'good', 'good']]);
    await expect(audit(of(await assignCbt(3)))).rejects.toMatchObject(found);
  });

  test('of another lineage leaves this one as it is', async () => {
    const other = { lineage: lineageId('ffffffffffffffff') };
    const full = await sealedFull(5, disk, other);
    point = await openPoint(6, other);
    const assignment = await assign(point, cbtOn(full, now.length));
    await expect(audit(of(assignment))).rejects.toMatchObject({
      message: expect.stringContaining('suspect: 0') as string,
    });
    expect([...points, full].map(stateOf)).toEqual(['good', 'good', 'good', 'good']);
  });
});

test('blocks that changed in the last restore points are asked for first, however the disk grew', async () => {
  const first = diskOf(100);
  let base = await sealedFull(1, first);
  const disk = Buffer.concat([first, diskOf(20, 'g')]);
  const point = await openPoint(2);
  const grown = planOf(disk.length, { mode: 'comparison', baseRestorePointId: base.restorePointId });
  const hot = upTo(10, 70);
  const after = written(disk, hot, 'h');
  await send({ assignment: await assign(point, grown), disk: after });
  base = await seal(point);
  const { asked } = await increment(3, base, after, []);
  expect(asked.slice(0, 10).toSorted((a, b) => a - b)).toEqual(hot);
  const audited = asked.slice(10);
  expect([audited.length, audited.some((block) => hot.includes(block))]).toEqual([54, false]);
});

test('answers to what was not asked for are refused', async () => {
  const disk = diskOf(3);
  const full = await sealedFull(1, disk);
  const assignment = await assign(await openPoint(2), cbtOn(full, disk.length));
  const { registrar } = world.repository;
  await begun(assignment);
  const refused = { code: 'PROTOCOL_ERROR', message: expect.stringContaining('not asked for') as string };
  await expect(registrar.goOnAudit('look', { classes: ['zero'], digests: new Uint8Array() })).rejects.toMatchObject(
    refused,
  );
  const step = await registrar.beginAudit('look', 0);
  const answers = answersOf({ registrar, assignment, disk, changed: [] }, step);
  const short = { classes: answers.classes.slice(1), digests: answers.digests.slice(32) };
  await expect(registrar.goOnAudit('look', short)).rejects.toMatchObject(refused);
  await assign({ restorePointId: assignment.restorePointId, run: assignment.run }, cbtOn(full, disk.length), 2);
  await expect(registrar.goOnAudit('look', answers)).rejects.toMatchObject({ code: 'FENCED' });
});

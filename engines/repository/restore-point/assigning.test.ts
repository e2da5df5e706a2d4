import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { diskKey, lineageId, restorePointId, type RestorePointId, vmId } from '../../../schema/domain/ids.ts';
import { type DiskPlan } from '../../../schema/domain/restore-point.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
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
const { openPoint, assign, send, seal, abort, sealedFull, instead } = inEachTest(
  createTestRepository,
  (made) => (world = made),
);

describe('opening', () => {
  test('is idempotent by run key, also after a restart', async () => {
    const first = await openPoint(1);
    expect(first.restorePointId).toMatch(/^[0-9a-f]{32}$/);
    expect([first.base, first.compareWith]).toEqual([null, null]);
    expect(first.freeBytes).toBeGreaterThan(0);
    const both = await Promise.all([openPoint(2), openPoint(2)]);
    expect(both[0].restorePointId).toBe(both[1].restorePointId);
    await world.reopen();
    expect((await openPoint(1)).restorePointId).toBe(first.restorePointId);
    expect(world.repository.listOpen().map((one) => one.run)).toEqual(expect.arrayContaining([runOf(1), runOf(2)]));
  });

  test('base is the last sealed of the lineage, comparison takes the newest of the VM', async () => {
    const disk = diskOf(2);
    const other = { lineage: lineageId('ffffffffffffffff') };
    const [a, b] = [await sealedFull(1, disk), await sealedFull(2, disk)];
    const c = await sealedFull(3, disk, other);
    await sealedFull(4, disk, { ...other, vm: { ...specOf(runOf(4)).vm, vmId: vmId('another') } });
    await world.reopen();
    const opened = await openPoint(5);
    expect(opened.base).toMatchObject({ restorePointId: b.restorePointId, disks: [{ diskKey: DISK, blockSize: MIB }] });
    expect(opened.compareWith?.restorePointId).toBe(c.restorePointId);
    expect(world.repository.listSealed()[0]?.restorePointId).toBe(a.restorePointId);
  });

  test('a clock that was set back does not change which is the last', async () => {
    let now = Date.parse('2026-11-24T12:00:00Z');
    await instead(() =>
      createTestRepository({ clock: { now: () => now, monotonic: () => 0, sleep: async () => undefined } }),
    );
    await sealedFull(1, diskOf(1));
    now -= 3_600_000;
    const second = await sealedFull(2, diskOf(1));
    expect((await openPoint(3)).base?.restorePointId).toBe(second.restorePointId);
  });

  test('what cannot be stored is refused before anything is made', async () => {
    await expect(openPoint(1, { blockSize: 4096 })).rejects.toMatchObject(codes('BAD_REQUEST', 'blockSize'));
    await expect(openPoint(1, { vmName: 'x'.repeat(5000) })).rejects.toMatchObject(codes('BAD_REQUEST', 'vmName'));
    expect(await readdir(join(world.folder, 'open'))).toEqual(['packs']);
    await openPoint(1);
    await expect(openPoint(1, { lineage: lineageId('ff') })).rejects.toMatchObject(codes('BAD_REQUEST'));
  });

  test('sealed and aborted run keys are refused as such', async () => {
    const point = await openPoint(1);
    await abort(point);
    await expect(openPoint(1)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    await sealedFull(2, diskOf(1));
    await expect(openPoint(2)).rejects.toMatchObject(codes('RESTORE_POINT_SEALED'));
    await world.reopen();
    await expect(openPoint(1)).rejects.toMatchObject(codes('RESTORE_POINT_ABORTED'));
    await expect(openPoint(2)).rejects.toMatchObject(codes('RESTORE_POINT_SEALED'));
  });
});

describe('declaring', () => {
  const declared = { diskKey: DISK, sizeBytes: MIB, identity: 'i0' };
  test('holds to the limits and needs an open restore point', async () => {
    const { restorePointId: id, run } = await openPoint(1);
    const declare = (disks: (typeof declared)[], of = { restorePointId: id, run }) =>
      world.repository.declareDisks({ ...of, disks });
    await declare([declared]);
    await declare([declared, { ...declared, diskKey: diskKey('d1') }]);
    await expect(declare([declared, declared])).rejects.toMatchObject(codes('BAD_REQUEST', 'twice'));
    await expect(declare([{ ...declared, sizeBytes: -1 }])).rejects.toMatchObject(codes('BAD_REQUEST', 'sizeBytes'));
    const many = Array.from({ length: 1025 }, (_, at) => ({ ...declared, diskKey: diskKey(`d${at}`) }));
    await expect(declare(many)).rejects.toMatchObject(codes('BAD_REQUEST', 'declared'));
    await expect(declare([declared], { restorePointId: id, run: runOf(9) })).rejects.toMatchObject(
      codes('RESTORE_POINT_NOT_FOUND'),
    );
  });

  test('a declared disk is transferred or said to be left out, else nothing is sealed', async () => {
    const point = await openPoint(1);
    const disks = [declared, { ...declared, diskKey: diskKey('cd') }];
    await world.repository.declareDisks({ ...point, disks });
    const disk = diskOf(1);
    await send({ assignment: await assign(point, planOf(disk.length)), disk });
    await expect(seal(point)).rejects.toMatchObject(codes('NOT_CONSERVED', 'disk cd'));
    const leftOut = [{ diskKey: diskKey('cd'), why: { code: 'READ_ONLY', message: 'an optical disk' } }];
    expect((await seal(point, { leftOut })).manifest).toMatchObject({ leftOut, disks: [{ diskKey: DISK }] });
  });

  test('an assigned disk that is left out after all does not hold up the seal', async () => {
    const point = await openPoint(1);
    await assign(point, planOf(MIB, { diskKey: diskKey('slow') }));
    const disk = diskOf(1);
    await send({ assignment: await assign(point, planOf(MIB)), disk });
    const leftOut = [{ diskKey: diskKey('slow'), why: { code: 'BAD_DISK', message: 'it cannot be read' } }];
    expect((await seal(point, { leftOut })).manifest.disks.map((one) => one.diskKey)).toEqual([DISK]);
  });
});

describe('assigning', () => {
  test('fences grow, repeats get the same, older numbers and older fences are refused, also after a restart', async () => {
    const point = await openPoint(1);
    const disk = diskOf(1);
    const plan = planOf(disk.length);
    const first = await assign(point, plan, 1);
    expect(await assign(point, plan, 1)).toEqual(first);
    const second = await assign(point, plan, 5);
    expect([first.fence, second.fence]).toEqual([1, 2]);
    await expect(assign(point, plan, 4)).rejects.toMatchObject(codes('FENCED'));
    await expect(assign(point, { ...plan, sizeBytes: 5 }, 5)).rejects.toMatchObject(codes('BAD_REQUEST'));
    await expect(send({ assignment: first, disk })).rejects.toMatchObject(codes('FENCED'));
    await world.reopen({ clean: false });
    expect(await assign(point, plan, 5)).toEqual(second);
    await expect(assign(point, plan, 4)).rejects.toMatchObject(codes('FENCED'));
    await expect(send({ assignment: first, disk })).rejects.toMatchObject(codes('FENCED'));
    await expect(send({ assignment: { ...second, fence: 3 }, disk })).rejects.toMatchObject(codes('PROTOCOL_ERROR'));
    await send({ assignment: second, disk });
  });

  test('a transfer in work is refused from the moment a newer one is given', async () => {
    const point = await openPoint(1);
    const disk = diskOf(130);
    const first = await assign(point, planOf(disk.length), 1);
    await send({ assignment: first, disk, connection: 'old', windows: 1 });
    const second = await assign(point, planOf(disk.length), 2);
    await expect(world.repository.registrar.offer('old', 64, digestOf(disk))).rejects.toMatchObject(codes('FENCED'));
    await expect(world.repository.registrar.commitUntouched('old', 1, 1)).rejects.toMatchObject(codes('FENCED'));
    // What the first made durable counts for the second.
    expect((await send({ assignment: second, disk })).windowsSent).toBe(2);
  });

  test.each([
    ['another checkpoint', {}, 'c2'],
    ['another read mode', { mode: 'comparison' as const }, 'c1'],
    ['another size', { sizeBytes: 66 * MIB }, 'c1'],
  ])('%s voids the ledger', async (_, change, checkpoint) => {
    const before = await sealedFull(1, diskOf(65));
    const point = await openPoint(2);
    const base = { mode: 'cbt' as const, baseRestorePointId: before.restorePointId };
    const first = await assign(point, planOf(65 * MIB, base), 1, 'c1');
    await send({ assignment: first, disk: diskOf(65), changed: [{ offset: 0, length: 1 }] });
    const same = await assign(point, planOf(65 * MIB, base), 2, 'c1');
    expect(await cursor(same)).toMatchObject({ lowWater: 2, above: [], windowCount: 2 });
    const other = await assign(point, planOf(65 * MIB, { ...base, ...change }), 3, checkpoint);
    expect((await cursor(other)).lowWater).toBe(0);
    await world.reopen();
    expect((await cursor(other)).lowWater).toBe(0);
  });

  const cursor = (assignment: Awaited<ReturnType<typeof assign>>) =>
    world.repository.registrar.begin('cursor', { purpose: 'backup', ...assignment });

  test('a disk that was smaller meanwhile, in a run that was aborted, is not read by CBT, also after a restart', async () => {
    const disk = diskOf(3);
    const full = await sealedFull(1, disk);
    const shrunk = await openPoint(2);
    await assign(shrunk, planOf(MIB));
    await assign(shrunk, planOf(disk.length, { diskKey: diskKey('other') }));
    await abort(shrunk);
    await world.reopen();
    const point = await openPoint(3);
    const on = { baseRestorePointId: full.restorePointId };
    await expect(assign(point, planOf(disk.length, { mode: 'cbt', ...on }))).rejects.toMatchObject(
      codes('TRACKING_LOST', 'the disk was smaller meanwhile'),
    );
    // Grown by itself again, and all beyond zeros: what a comparison finds.
    const now = Buffer.concat([disk.subarray(0, MIB), Buffer.alloc(2 * MIB)]);
    await send({ assignment: await assign(point, planOf(now.length, { mode: 'comparison', ...on })), disk: now });
    const next = await seal(point);
    expect(await handRestore(world, next.restorePointId, DISK)).toEqual(now);
    const more = { mode: 'cbt', baseRestorePointId: next.restorePointId } as const;
    expect((await assign(await openPoint(4), planOf(now.length, more))).mode).toBe('cbt');
  });

  test('a base is the last of the lineage for CBT, of the same VM and block size for any', async () => {
    const disk = diskOf(1);
    const [old, last] = [await sealedFull(1, disk), await sealedFull(2, disk)];
    const foreign = await sealedFull(3, disk, {
      vm: { ...specOf(runOf(3)).vm, vmId: vmId('other') },
      lineage: lineageId('0f'),
    });
    const small = await sealedFull(4, disk, { blockSize: 256 * 1024, lineage: lineageId('0e') });
    const point = await openPoint(5);
    const plan = (mode: DiskPlan['mode'], base: RestorePointId | null, change: Partial<DiskPlan> = {}) =>
      assign(point, planOf(disk.length, { mode, baseRestorePointId: base, ...change }));
    await expect(plan('cbt', old.restorePointId)).rejects.toMatchObject(codes('TRACKING_LOST', 'not the last'));
    await expect(plan('cbt', last.restorePointId, { identity: 'i1' })).rejects.toMatchObject(codes('TRACKING_LOST'));
    await expect(plan('cbt', null)).rejects.toMatchObject(codes('BAD_REQUEST'));
    await expect(plan('full', last.restorePointId)).rejects.toMatchObject(codes('BAD_REQUEST'));
    await expect(plan('comparison', foreign.restorePointId)).rejects.toMatchObject(codes('BAD_REQUEST', 'another VM'));
    await expect(plan('comparison', small.restorePointId)).rejects.toMatchObject(codes('TRACKING_LOST'));
    await expect(plan('comparison', last.restorePointId, { diskKey: diskKey('new') })).rejects.toMatchObject(
      codes('TRACKING_LOST'),
    );
    await expect(plan('comparison', restorePointId('00'.repeat(16)))).rejects.toMatchObject(
      codes('RESTORE_POINT_NOT_FOUND'),
    );
    expect((await plan('comparison', old.restorePointId)).mode).toBe('comparison');
    expect(
      (await assign(point, planOf(disk.length, { mode: 'cbt', baseRestorePointId: last.restorePointId }), 2)).fence,
    ).toBe(2);
  });
});

describe('the registrar', () => {
  const zero = { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: 0 };
  const begin = async (blocks: number) => {
    const point = await openPoint(1);
    const assignment = await assign(point, planOf(blocks * MIB));
    await world.repository.registrar.begin('x', { purpose: 'backup', ...assignment });
    return { registrar: world.repository.registrar, assignment };
  };

  test('asks for a digest once per window, and never makes one window depend on another', async () => {
    const { registrar } = await begin(130);
    const digest = digestOf(Buffer.from('same'));
    expect(await registrar.offer('x', 0, Buffer.concat([digest, digest]))).toEqual(['want', 'have']);
    expect(await registrar.offer('x', 0, digest)).toEqual(['want']);
    expect(await registrar.offer('x', 64, digest)).toEqual(['want']);
  });

  test('refuses what does not add up', async () => {
    const { registrar, assignment } = await begin(65);
    const refused = (work: Promise<unknown>, text: string) =>
      expect(work).rejects.toMatchObject(codes('PROTOCOL_ERROR', text));
    const window = {
      windowIndex: 1,
      classes: ['zero' as const],
      digests: Buffer.alloc(32),
      records: [],
      declared: zero,
    };
    await refused(registrar.offer('nobody', 0, Buffer.alloc(32)), 'has not begun');
    await refused(registrar.offer('x', 65, Buffer.alloc(32)), 'offer of 32 bytes');
    await refused(registrar.offer('x', -1, Buffer.alloc(32)), 'offer of 32 bytes');
    await refused(registrar.offer('x', 0, Buffer.alloc(33)), 'offer of 33 bytes');
    await refused(registrar.commit('x', { ...window, windowIndex: 2 }), 'no window 2');
    await refused(registrar.commit('x', window), 'zeroBytes are 1048576 bytes, declared 0');
    await refused(registrar.commit('x', { ...window, classes: [] }), '0 classes for 1 blocks');
    await refused(registrar.commit('x', { ...window, classes: ['not-read'] }), 'was not read, and there is no base');
    const data = { ...window, classes: ['data' as const], declared: { ...zero, dataBytes: MIB } };
    await refused(registrar.commit('x', data), 'no record');
    await refused(registrar.commit('x', { ...data, digests: digestOf(Buffer.from('never sent')) }), 'no record');
    await refused(registrar.commitUntouched('x', 0, 2), 'was not read, and there is no base');
    await refused(registrar.commitUntouched('x', 0, 0), '0 windows');
    await refused(registrar.commitUntouched('x', 1, 5), 'no window 5');
    await refused(registrar.begin('y', { purpose: 'backup', ...assignment, sizeBytes: 1 }), 'assigned with');
    await refused(registrar.begin('y', { purpose: 'backup', ...assignment, diskKey: diskKey('no') }), 'not assigned');
    await registrar.commit('x', { ...window, declared: { ...zero, zeroBytes: MIB } });
  });

  test('serves a restore point that a process before it opened, without being told', async () => {
    const point = await openPoint(1);
    const disk = diskOf(130);
    const assignment = await assign(point, planOf(disk.length));
    await send({ assignment, disk, windows: 1 });
    await world.reopen({ clean: false });
    world.repository.rehearse(point.restorePointId, point.run);
    expect((await send({ assignment, disk })).windowsSent).toBe(2);
    await seal(point);
    expect(() => world.repository.rehearse(point.restorePointId, point.run)).toThrow(/is sealed/);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
  });

  test('a window whose blocks were lost is sent again', async () => {
    const point = await openPoint(1);
    const disk = diskOf(130);
    const assignment = await assign(point, planOf(disk.length));
    await send({ assignment, disk, windows: 2 });
    await world.reopen({ loseIndex: true });
    for (const shelf of await readdir(join(world.folder, 'packs')))
      await rm(join(world.folder, 'packs', shelf), { recursive: true });
    await world.reopen({ loseIndex: true });
    expect((await send({ assignment, disk })).windowsSent).toBe(3);
    await seal(point);
    expect((await handRestore(world, point.restorePointId, DISK)).equals(disk)).toBe(true);
  });
});

describe('the restore source', () => {
  test('refuses what there is not', async () => {
    const { restorePointId: id } = await sealedFull(1, diskOf(1));
    const { restoreSource } = world.repository;
    const hello = { purpose: 'restore' as const, restorePointId: id, diskKey: DISK };
    await expect(restoreSource.begin('r', { ...hello, diskKey: diskKey('d9') })).rejects.toMatchObject(
      codes('NOT_FOUND', 'd9'),
    );
    const open = await openPoint(2);
    await expect(restoreSource.begin('r', { ...hello, restorePointId: open.restorePointId })).rejects.toMatchObject(
      codes('RESTORE_POINT_NOT_FOUND'),
    );
    await expect(restoreSource.resolve('r', 0)).rejects.toMatchObject(codes('PROTOCOL_ERROR'));
    expect(await restoreSource.begin('r', hello)).toEqual({ sizeBytes: MIB, blockSize: MIB });
    for (const window of [-1, 1, 0.5])
      await expect(restoreSource.resolve('r', window)).rejects.toMatchObject(codes('PROTOCOL_ERROR'));
    expect((await restoreSource.resolve('r', 0)).places).toHaveLength(1);
    await restoreSource.end('r');
    await expect(restoreSource.resolve('r', 0)).rejects.toMatchObject(codes('PROTOCOL_ERROR'));
  });
});

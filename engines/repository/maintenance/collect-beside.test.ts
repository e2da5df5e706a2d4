/** Collections beside sessions, restores and restarts: nothing that somebody was told is there, or holds, goes. */
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { lineageId, type RestorePointId } from '../../../schema/domain/ids.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { FinishedWindow, TransferHello } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { openRecordSource } from '../pack/record-source.ts';
import type { StorageCall } from '../storage/around-calls.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { DISK, MIB, planOf } from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf, type Point } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
const { openPoint, assign, send, seal, sealedFull, instead } = inEachTest(createMaintained, (made) => (world = made));
const remove = (id: RestorePointId) => world.repository.removeRestorePoint(id, { last: true });
const other = { lineage: lineageId('f'.repeat(16)) };

/** A restore point whose blocks nobody needs any more, in packs that are closed. */
async function removed(disk: Buffer): Promise<RestorePointId> {
  const { restorePointId } = await sealedFull(90, disk, other);
  await world.reopen();
  await remove(restorePointId);
  return restorePointId;
}

const isPackOpened = ({ operation, name }: StorageCall): boolean => operation === 'open' && name.startsWith('packs/');

/** Two windows, of which most is zeros. */
const sparseDisk = (): Buffer => Buffer.concat([diskOf(5), Buffer.alloc(60 * MIB), diskOf(3, 'z')]);

type Assigned = Omit<TransferAssignment, 'endpoint'>;
const helloOf = ({ restorePointId, run, diskKey, fence, sizeBytes, blockSize }: Assigned): TransferHello => ({
  purpose: 'backup',
  restorePointId,
  run,
  diskKey,
  fence,
  sizeBytes,
  blockSize,
});

const digestsOf = (disk: Buffer): Buffer =>
  Buffer.concat(
    Array.from({ length: disk.length / MIB }, (_, block) => digestOf(disk.subarray(block * MIB, (block + 1) * MIB))),
  );

/** The one window of a disk of data, with records only of what was asked for. */
const windowOf = (disk: Buffer, records: FinishedWindow['records'] = []): FinishedWindow => ({
  windowIndex: 0,
  classes: Array.from({ length: disk.length / MIB }, () => 'data' as const),
  digests: digestsOf(disk),
  records,
  declared: { notReadBytes: 0, unallocatedBytes: 0, zeroBytes: 0, dataBytes: disk.length },
});

async function assigned(number: number, disk: Buffer): Promise<{ point: Point; given: Assigned }> {
  const point = await openPoint(number);
  return { point, given: await assign(point, planOf(disk.length)) };
}

describe('backup', () => {
  test('a block that was answered `have` stays until its window is in the ledger, and then because it is', async () => {
    const disk = diskOf(5);
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    const { registrar } = world.repository;
    await registrar.begin('c', helloOf(given));
    expect(await registrar.offer('c', 0, digestsOf(disk))).toEqual(Array(5).fill('have'));
    await world.collect();
    await registrar.commit('c', windowOf(disk));
    await registrar.end('c');
    await world.collect();
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
    await world.collect();
    await world.reopen({ loseIndex: true });
    expect((await world.restore(point)).equals(disk)).toBe(true);
  });

  test('a promise ends with its connection: after a collection the block is wanted', async () => {
    const disk = diskOf(5);
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    const { registrar } = world.repository;
    await registrar.begin('c', helloOf(given));
    await registrar.offer('c', 0, digestsOf(disk));
    await registrar.end('c');
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 2 });
    expect(await send({ assignment: given, disk })).toMatchObject({ answers: { want: 5 } });
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('a collection between the restart of a repository and the source that comes back', async () => {
    const disk = diskOf(5);
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    await world.repository.registrar.begin('c', helloOf(given));
    await world.repository.registrar.offer('c', 0, digestsOf(disk));
    await world.reopen({ clean: false });
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 2 });
    // What it was told before the restart counts for nothing, on either side.
    await world.repository.registrar.begin('c', helloOf(given));
    await expect(world.repository.registrar.commit('c', windowOf(disk))).rejects.toMatchObject({
      code: 'PROTOCOL_ERROR',
    });
    expect(await send({ assignment: given, disk })).toMatchObject({ answers: { want: 5 } });
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('of windows in the ledger nothing goes, however often the repository is restarted', async () => {
    const disk = sparseDisk();
    const { point, given } = await assigned(1, disk);
    await send({ assignment: given, disk, windows: 1 });
    for (let times = 0; times < 2; times += 1) {
      await world.reopen({ clean: times === 0 });
      expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 0 });
    }
    expect(await send({ assignment: given, disk })).toMatchObject({ windowsSent: 1 });
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('two transfers offer one new digest, the first dies: what it wrote goes, what the other wrote stays', async () => {
    const disk = diskOf(3);
    const [first, second] = [await assigned(1, disk), await openPoint(2, other)];
    const given = await assign(second, planOf(disk.length));
    const { registrar } = world.repository;
    await registrar.begin('first', helloOf(first.given));
    await registrar.begin('second', helloOf(given));
    for (const name of ['first', 'second'])
      expect(await registrar.offer(name, 0, digestsOf(disk))).toEqual(['want', 'want', 'want']);
    // The first wrote and synced, and died before it committed.
    const { restorePointId } = first.point;
    for (let block = 0; block < 3; block += 1) {
      const payload = disk.subarray(block * MIB, (block + 1) * MIB);
      world.sink.append({ digest: digestOf(payload), codec: 'none', rawLength: MIB, payload, restorePointId });
    }
    await world.sink.close();
    await registrar.end('first');
    await world.repository.abort(first.point);
    await world.collect();
    await send({ assignment: given, disk });
    await world.collect();
    expect((await world.restore(await seal(second))).equals(disk)).toBe(true);
    await world.reopen();
    await world.collect();
    expect(await world.collect()).toMatchObject({ stopped: null, deadBytesLeft: 0 });
    expect((await world.restore(second)).equals(disk)).toBe(true);
  });

  test('records of a window that is not committed, in a pack that is closed: the collection leaves them', async () => {
    const disk = diskOf(3);
    const { point, given } = await assigned(1, disk);
    const { registrar } = world.repository;
    await registrar.begin('c', helloOf(given));
    await registrar.offer('c', 0, digestsOf(disk));
    const records = [0, 1, 2].map((block) => {
      const payload = disk.subarray(block * MIB, (block + 1) * MIB);
      const { restorePointId } = point;
      const record = { digest: digestOf(payload), codec: 'none' as const, rawLength: MIB, payload, restorePointId };
      return { digest: record.digest, place: world.sink.append(record) };
    });
    await world.sink.close();
    await world.collect();
    await registrar.commit('c', windowOf(disk, records));
    await registrar.end('c');
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('what is answered `have` while a collection runs stays, also when it was found dead before', async () => {
    const disk = diskOf(5);
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    const { registrar } = world.repository;
    await registrar.begin('c', helloOf(given));
    // All is marked and counted by then: this is the last look at a pack.
    world.before(isPackOpened, async () => {
      expect(await registrar.offer('c', 0, digestsOf(disk))).toEqual(Array(5).fill('have'));
    });
    // Of its pages nobody asked.
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 1 });
    await registrar.commit('c', windowOf(disk));
    await registrar.end('c');
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('a window on its way to the ledger is safe when its connection ends meanwhile', async () => {
    const disk = diskOf(5);
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    const { registrar } = world.repository;
    await registrar.begin('c', helloOf(given));
    await registrar.offer('c', 0, digestsOf(disk));
    world.before(
      ({ operation, name }) => operation === 'append' && name.endsWith('/ledger'),
      async () => {
        await registrar.end('c');
        expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 1 });
      },
    );
    await registrar.commit('c', windowOf(disk));
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('a seal in the middle of a collection finds all that its ledger names', async () => {
    const disk = diskOf(5);
    const { point, given } = await assigned(1, disk);
    await send({ assignment: given, disk });
    await world.sink.close();
    world.before(
      ({ operation, name }) => operation === 'list' && name === 'manifests',
      async () => void (await seal(point)),
    );
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 0 });
    expect((await world.restore(point)).equals(disk)).toBe(true);
  });

  test('a collection waits with its beginning for a seal that is under way, and takes nothing of it', async () => {
    const disk = diskOf(5);
    // Its blocks and pages are found in closed packs, where nothing else needs them, and before anybody watches.
    await removed(disk);
    const { point, given } = await assigned(1, disk);
    expect(await send({ assignment: given, disk })).toMatchObject({ answers: { have: 5 } });
    let collecting: Promise<unknown> = Promise.resolve();
    let hasBegun = false;
    world.before(
      ({ operation, name }) => operation === 'putIfAbsent' && name.startsWith('manifests/'),
      async () => {
        collecting = world.collect();
        world.before(
          ({ operation, name }) => operation === 'list' && name === 'manifests',
          async () => void (hasBegun = true),
        );
        await new Promise((resolve) => setTimeout(resolve, 50));
        expect(hasBegun).toBe(false);
      },
    );
    await seal(point);
    expect(await collecting).toMatchObject({ stopped: null, packsTrashed: 0 });
    expect(hasBegun).toBe(true);
    expect((await world.restore(point)).equals(disk)).toBe(true);
  });

  test('a base is safe while the head that will name it is written', async () => {
    const disk = sparseDisk();
    const base = await sealedFull(1, disk);
    await world.reopen();
    const point = await openPoint(2);
    world.before(
      ({ operation, name }) => operation === 'replace' && name.endsWith('/head'),
      async () => {
        await remove(base.restorePointId);
        expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 0 });
      },
    );
    const given = await assign(point, planOf(disk.length, { mode: 'cbt', baseRestorePointId: base.restorePointId }));
    expect(given.alsoRead).toEqual([]);
    await send({ assignment: given, disk, changed: [] });
    expect((await world.restore(await seal(point))).equals(disk)).toBe(true);
  });

  test('an increment goes on when its base is removed, and is whole without it', async () => {
    const disk = sparseDisk();
    const base = await sealedFull(1, disk);
    await world.reopen();
    const { given, point } = await (async () => {
      const opened = await openPoint(2);
      const plan = planOf(disk.length, { mode: 'cbt', baseRestorePointId: base.restorePointId });
      return { point: opened, given: await assign(opened, plan) };
    })();
    await remove(base.restorePointId);
    expect(await world.collect()).toMatchObject({ stopped: null, packsTrashed: 0 });
    const now = Buffer.concat([diskOf(1, 'b'), disk.subarray(MIB)]);
    const changed = [{ offset: 0, length: MIB }];
    await send({ assignment: given, disk: now, changed });
    await world.collect();
    expect((await world.restore(await seal(point))).equals(now)).toBe(true);
    await world.collect();
    await world.reopen({ loseIndex: true });
    expect((await world.restore(point)).equals(now)).toBe(true);
  });

  describe('a pack that a restore point needs that was sealed, and locked, while a collection runs, stays', () => {
    type Moment = (call: StorageCall, pack: string) => boolean;
    const moments: Record<string, Moment> = {
      'when it was chosen': (call, pack) => isPackOpened(call) && call.name.endsWith(pack),
      'when it was copied': ({ operation, name }) => operation === 'put' && name.startsWith('packs/'),
    };
    const shared = diskOf(10).subarray(0, 5 * MIB);

    /** Half of the first pack is dead; the other half is needed by what is not locked. */
    async function halfDead(): Promise<{ pack: string; base: RestorePointId }> {
      const first = await sealedFull(1, diskOf(10), other);
      await world.reopen();
      const [pack] = world.packs();
      const { restorePointId: base } = await sealedFull(2, shared);
      await remove(first.restorePointId);
      world.settings.lockDays = 5;
      await world.reopen();
      return { pack: pack!, base };
    }

    /** Nothing is sent: its blocks are those that the repository has, or its base. */
    async function begun(base: RestorePointId | null): Promise<Point> {
      const point = await openPoint(3, base ? {} : other);
      const plan = base ? { mode: 'cbt' as const, baseRestorePointId: base } : {};
      await send({ assignment: await assign(point, planOf(shared.length, plan)), disk: shared, changed: [] });
      return point;
    }

    async function stays(pack: string, moment: Moment, work: () => Promise<Point>) {
      let point: Point | null = null;
      world.before(
        (call) => moment(call, pack),
        async () => void (await seal((point = await work()))),
      );
      expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 0 });
      expect(world.packs()).toContain(pack);
      expect((await world.restore(point!)).equals(shared)).toBe(true);
      // Else its manifest cannot be removed. What was left then goes.
      world.pass(6 * DAY_MS);
      expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 1 });
      expect(world.packs()).not.toContain(pack);
      expect((await world.restore(point!)).equals(shared)).toBe(true);
    }

    for (const [when, moment] of Object.entries(moments)) {
      test(`${when}: it was told of its blocks meanwhile`, async () => {
        const { pack } = await halfDead();
        await stays(pack, moment, () => begun(null));
      });

      test(`${when}: it was told of its blocks before`, async () => {
        const { pack } = await halfDead();
        const point = await begun(null);
        await stays(pack, moment, async () => point);
      });

      test(`${when}: it takes its blocks over from its base, which is not locked`, async () => {
        const { pack, base } = await halfDead();
        const point = await begun(base);
        await stays(pack, moment, async () => point);
      });
    }
  });

  test('blocks in the trash are wanted again, and serve again', async () => {
    const disk = diskOf(5);
    await removed(disk);
    await world.collect();
    const sealed = await sealedFull(1, disk);
    world.pass(2 * DAY_MS);
    await world.collect();
    world.pass(2 * DAY_MS);
    await world.collect();
    expect(world.trash()).toEqual([]);
    expect((await world.restore(sealed)).equals(disk)).toBe(true);
  });
});

describe('restore', () => {
  test('what is being restored is not removed, and a reader that lags asks again', async () => {
    const first = diskOf(10);
    const old = await sealedFull(1, first);
    await world.reopen();
    const kept = Buffer.concat([first.subarray(0, 3 * MIB), diskOf(7, 'b')]);
    const sealed = await sealedFull(2, kept);
    const { restoreSource } = world.repository;
    const begin = (name: string, { restorePointId }: { restorePointId: RestorePointId }) =>
      restoreSource.begin(name, { purpose: 'restore', restorePointId, diskKey: DISK });
    await begin('old', old);
    await expect(remove(old.restorePointId)).rejects.toMatchObject({ code: 'RESTORE_POINT_HELD' });
    await begin('r', sealed);
    const before = await restoreSource.resolve('r', 0);
    await restoreSource.end('old');
    await remove(old.restorePointId);
    expect(await world.collect()).toMatchObject({ stopped: null, packsRewritten: 1 });
    const after = await restoreSource.resolve('r', 0);
    expect(after.digests).toEqual(before.digests);
    expect(after.places[0]).not.toEqual(before.places[0]);
    const records = openRecordSource({ storage: world.storage, vault: plainVault });
    await expect(records.read(before.places[0]!, before.digests.subarray(0, 32))).rejects.toMatchObject({
      code: 'DAMAGED_BLOCK',
    });
    await records.read(after.places[0]!, after.digests.subarray(0, 32));
    await records.close();
    await restoreSource.end('r');
  });

  test('a restore under way holds what it restores, whatever becomes of its manifest', async () => {
    const disk = diskOf(5);
    const { restorePointId } = await sealedFull(1, disk);
    const kept = await sealedFull(2, diskOf(3, 'b'));
    await world.reopen();
    const removing = remove(restorePointId).catch(() => undefined);
    const { restoreSource } = world.repository;
    // In the same moment: whoever is first.
    await restoreSource.begin('r', { purpose: 'restore', restorePointId, diskKey: DISK });
    await removing;
    await world.collect();
    const records = openRecordSource({ storage: world.storage, vault: plainVault });
    const { places, digests } = await restoreSource.resolve('r', 0);
    for (const [at, place] of places.entries()) await records.read(place!, digests.subarray(at * 32, at * 32 + 32));
    await records.close();
    await restoreSource.end('r');
    expect((await world.restore(kept)).length).toBe(3 * MIB);
  });
});

describe('the trash', () => {
  test('a removed restore point comes back with all that it needs, and again goes', async () => {
    const disk = sparseDisk();
    const { restorePointId } = await sealedFull(1, disk);
    await world.reopen();
    const kept = Buffer.concat([disk.subarray(0, 3 * MIB), diskOf(7, 'b')]);
    const other = await sealedFull(2, kept);
    for (let times = 0; times < 2; times += 1) {
      await remove(restorePointId);
      expect(world.repository.listSealed()).toHaveLength(1);
      await world.collect();
      await world.reopen({ loseIndex: times === 1 });
      expect(await world.repository.restoreFromTrash(restorePointId)).toMatchObject({ restorePointId });
      expect(await world.repository.restoreFromTrash(restorePointId)).toMatchObject({ restorePointId });
      for (const [point, content] of [
        [{ restorePointId }, disk],
        [other, kept],
      ] as const)
        expect((await world.restore(point)).equals(content)).toBe(true);
      expect(await world.collect()).toMatchObject({ stopped: null });
      expect((await world.restore({ restorePointId })).equals(disk)).toBe(true);
    }
  });

  test('asked for again while it is on its way back, both hear of the same end', async () => {
    await instead(() => createMaintained({ undeleteWaitMs: 0 }));
    const old = await sealedFull(1, diskOf(20));
    await sealedFull(2, diskOf(2, 'b'));
    await remove(old.restorePointId);
    const { repository } = world;
    const asked = Array.from({ length: 3 }, () => repository.restoreFromTrash(old.restorePointId));
    for (const answer of await Promise.all(asked)) expect(answer).toMatchObject({ restorePointId: old.restorePointId });
    expect((await world.restore(old)).equals(diskOf(20))).toBe(true);
  });

  test('beside a collection nothing is brought back: whoever asks hears of it soon, and later it is', async () => {
    await instead(() => createMaintained({ undeleteWaitMs: 50 }));
    const [old] = [await sealedFull(1, diskOf(2)), await sealedFull(2, diskOf(2, 'b'))];
    await world.reopen();
    await world.repository.removeRestorePoint(old.restorePointId);
    const undelete = () => world.repository.restoreFromTrash(old.restorePointId);
    const told = expect.stringContaining('collected or repaired') as string;
    world.before(isPackOpened, () =>
      expect(undelete()).rejects.toMatchObject({ code: 'ALREADY_RUNNING', message: told }),
    );
    expect(await world.collect()).toMatchObject({ stopped: null });
    expect(await undelete()).toMatchObject({ restorePointId: old.restorePointId });
    // What the collection would do first was not queued behind it.
    expect(world.trash()).toEqual([]);
  });

  test('too late is too late: it says so, and nothing is half back', async () => {
    const disk = diskOf(5);
    const id = await removed(disk);
    await world.collect();
    for (let times = 0; times < 2; times += 1) {
      world.pass(DAY_MS);
      await world.collect();
    }
    await expect(world.repository.restoreFromTrash(id)).rejects.toMatchObject({ code: 'RESTORE_POINT_NOT_FOUND' });
    await expect(remove(id)).rejects.toMatchObject({ code: 'RESTORE_POINT_NOT_FOUND' });
    expect(world.repository.listSealed()).toEqual([]);
    expect(await readdir(join(world.folder, 'manifests'), { recursive: true })).toHaveLength(1);
  });

  test('what something needs after all is brought back in place of being removed', async () => {
    const disk = diskOf(5);
    const sealed = await sealedFull(1, disk);
    await world.reopen();
    const names = [...world.packs().map((pack) => ['packs', pack]), ...world.pagePacks().map((pack) => ['meta', pack])];
    await world.collect();
    // As if a collection had been wrong.
    for (const [shelf, pack] of names)
      await world.storage.store.moveToTrash({ epoch: 1, name: `${shelf}/${pack!.slice(0, 2)}/${pack}` });
    await world.reopen();
    // A restore finds it; so does a collection that meets a page that is missing.
    expect((await world.restore(sealed)).equals(disk)).toBe(true);
    const [pack] = world.packs();
    await world.storage.store.moveToTrash({ epoch: 1, name: `packs/${pack!.slice(0, 2)}/${pack}` });
    await world.reopen();
    await world.collect();
    world.pass(2 * DAY_MS);
    expect(await world.collect()).toMatchObject({ stopped: null, packsRestored: 1, packsRemoved: 0 });
    expect(world.packs()).toEqual([pack]);
    expect((await world.restore(sealed)).equals(disk)).toBe(true);
  });
});

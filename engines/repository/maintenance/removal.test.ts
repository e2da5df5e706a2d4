/** Removing restore points and their flags. */
import { readFile, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { lineageId, type RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import { encodeManifest } from '../../../schema/repository/documents.ts';
import { rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
const { openPoint, sealedFull } = inEachTest(createMaintained, (made) => (world = made));
const remove = (id: RestorePointId, last = false) => world.repository.removeRestorePoint(id, { last });
const isListing = ({ operation }: { operation: string }): boolean => operation === 'listTrash';
const held = expect.objectContaining({ code: 'RESTORE_POINT_HELD' }) as Error;
const isLast = expect.objectContaining({ code: 'LAST_RESTORE_POINT' }) as Error;
const unknown = expect.objectContaining({ code: 'RESTORE_POINT_NOT_FOUND' }) as Error;

describe('removing', () => {
  test('one rename, told once and again, over a restart', async () => {
    const [old, kept] = [await sealedFull(1, diskOf(2)), await sealedFull(2, diskOf(2, 'b'))];
    const outcome = {
      restorePointId: old.restorePointId,
      removed: true,
      trashedUntil: new Date(world.clocks.host + DAY_MS).toISOString(),
      asOf: new Date(world.clocks.host).toISOString(),
    };
    expect(await remove(old.restorePointId)).toEqual(outcome);
    expect(await remove(old.restorePointId)).toEqual(outcome);
    expect(world.trash()).toEqual([`0/manifests/${old.manifest.vm.vmId}/${old.restorePointId}`]);
    await world.reopen();
    expect(world.repository.listSealed().map((one) => one.restorePointId)).toEqual([kept.restorePointId]);
    expect(() => world.repository.describeSealed(old.restorePointId)).toThrow(unknown);
    expect(await remove(old.restorePointId)).toEqual(outcome);
  });

  test('never the newest of a lineage, unless that is said; others are counted apart', async () => {
    const lineage = lineageId('f'.repeat(16));
    const [a, b, c] = [
      await sealedFull(1, diskOf(1)),
      await sealedFull(2, diskOf(1, 'b')),
      await sealedFull(3, diskOf(1, 'c'), { lineage }),
    ];
    await expect(remove(b.restorePointId)).rejects.toEqual(isLast);
    await expect(remove(c.restorePointId)).rejects.toEqual(isLast);
    // Both at once: one of them stays.
    const both = await Promise.allSettled([remove(b.restorePointId), remove(a.restorePointId)]);
    expect(both.map(({ status }) => status)).toEqual(['rejected', 'fulfilled']);
    await remove(b.restorePointId, true);
    await remove(c.restorePointId, true);
    expect(world.repository.listSealed()).toEqual([]);
  });

  test('at every moment it is either there or in the trash', async () => {
    const [old, kept] = [await sealedFull(1, diskOf(2)), await sealedFull(2, diskOf(2, 'b'))];
    const placesOf = async () => {
      const { sealed, trashed } = await world.repository.survey();
      return [sealed, trashed].map((points) => points.map(({ restorePointId }) => restorePointId));
    };
    const seen: ReturnType<typeof placesOf>[] = [];
    const look = async (): Promise<void> => {
      // It waits for what is under way: nobody waits for it.
      seen.push(placesOf());
      await new Promise((resolve) => setImmediate(resolve));
    };
    world.before(({ operation }) => operation === 'moveToTrash', look);
    await Promise.all([remove(old.restorePointId), look()]);
    world.before(({ operation }) => operation === 'restoreFromTrash', look);
    await Promise.all([world.repository.restoreFromTrash(old.restorePointId), look()]);
    expect(seen).toHaveLength(4);
    const both = [old.restorePointId, kept.restorePointId].toSorted();
    for (const places of await Promise.all(seen)) expect(places.flat().toSorted()).toEqual(both);
  });

  test('in the trash it is described as it was, with the end of its grace; gone, or damaged, it is not', async () => {
    const [old, damaged] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await sealedFull(3, diskOf(1, 'c'));
    await world.repository.setFlags(old.restorePointId, { keep: true });
    await world.repository.setFlags(old.restorePointId, { keep: false });
    for (const { restorePointId } of [old, damaged]) await remove(restorePointId);
    const ids = [old, damaged].map(({ restorePointId }) => restorePointId);
    const untilAt = (ms: number) => ({ trashedUntil: new Date(ms + DAY_MS).toISOString() });
    expect(await world.repository.describeTrashed(ids)).toHaveLength(2);
    expect(await world.repository.describeTrashed(ids.slice(0, 1))).toMatchObject([
      { ...old, ...untilAt(world.clocks.host), flags: { keep: false } },
    ]);
    await writeFile(join(world.folder, 'trash/0/manifests', damaged.manifest.vm.vmId, damaged.restorePointId), '{}');
    await world.reopen();
    expect(await world.repository.describeTrashed(ids)).toMatchObject([old]);
    // From the next collection on it is known since when it has been lying there.
    await world.collect();
    const settledMs = world.clocks.host;
    world.pass(DAY_MS / 2);
    expect((await world.repository.survey()).trashed[0]).toMatchObject(untilAt(settledMs));
    expect(await remove(old.restorePointId)).toMatchObject(untilAt(settledMs));
    world.clocks.server = null;
    expect((await world.repository.survey()).trashed[0]).toMatchObject({ trashedUntil: null });
    world.clocks.server = world.clocks.host;
    world.pass(DAY_MS / 2);
    await world.collect();
    expect(await world.repository.describeTrashed([old.restorePointId])).toEqual([]);
  });

  test('the trash is listed once for all pages of a survey, and anew when something has moved', async () => {
    const [first, second] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await sealedFull(3, diskOf(1, 'c'));
    let listings = 0;
    const count = (): void =>
      world.before(isListing, async () => {
        listings += 1;
        count();
      });
    count();
    const idsOf = (points: readonly { restorePointId: RestorePointId }[]) => points.map((one) => one.restorePointId);
    /** As the pages of an import: a survey each, and what is missing is described. */
    const lookThrough = async (): Promise<RestorePointId[]> => {
      let found: RestorePointId[] = [];
      for (let page = 0; page < 10; page += 1) {
        found = idsOf((await world.repository.survey()).trashed);
        expect(idsOf(await world.repository.describeTrashed(found))).toEqual(found);
      }
      return found.toSorted();
    };
    await remove(first.restorePointId);
    listings = 0;
    expect(await lookThrough()).toEqual([first.restorePointId]);
    expect(listings).toBe(1);
    await remove(second.restorePointId);
    listings = 0;
    expect(await lookThrough()).toEqual([first, second].map((one) => one.restorePointId).toSorted());
    expect(listings).toBe(1);
    await world.repository.restoreFromTrash(first.restorePointId);
    listings = 0;
    expect(await lookThrough()).toEqual([second.restorePointId]);
    expect(listings).toBe(1);
  });

  test('with a block that is known to be rotten it comes back marked, as one that was never removed', async () => {
    const disk = diskOf(3);
    const [old, kept] = [await sealedFull(1, disk), await sealedFull(2, disk)];
    await world.reopen();
    await remove(old.restorePointId);
    await rotBlock(world, kept.restorePointId, 1);
    const check = { depth: 'full', vmId: null, restorePointId: null, maxBytes: null, maxMs: null } as const;
    await world.repository.check(check, { signal: new AbortController().signal, onProgress: () => undefined });
    expect(world.repository.markOf(old.restorePointId)).toBeNull();
    await world.repository.restoreFromTrash(old.restorePointId);
    for (const { restorePointId } of [old, kept])
      expect(world.repository.markOf(restorePointId)).toMatchObject({ state: 'damaged' });
  });

  test('a list of the trash that fails is not kept', async () => {
    const [first] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await remove(first.restorePointId);
    world.before(isListing, async () => {
      throw new TidemarkError('STORAGE_ERROR', 'no disk');
    });
    await expect(world.repository.survey()).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    expect((await world.repository.survey()).trashed).toMatchObject([{ restorePointId: first.restorePointId }]);
  });

  test('one that was never sealed is not known', async () => {
    await expect(remove((await openPoint(1)).restorePointId)).rejects.toEqual(unknown);
  });

  test('when it fails nothing was removed', async () => {
    const [old] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await writeFile(join(world.folder, 'trash'), 'not a folder');
    await expect(remove(old.restorePointId)).rejects.toMatchObject({ code: 'STORAGE_ERROR' });
    expect(world.repository.listSealed()).toHaveLength(2);
    expect((await world.restore(old)).equals(diskOf(1))).toBe(true);
  });

  test('takes no longer with many of them', async () => {
    const { manifest } = await sealedFull(1, diskOf(1));
    for (let number = 0; number < 200; number += 1) {
      const restorePointId = number.toString(16).padStart(32, '0') as RestorePointId;
      const one: Manifest = { ...manifest, restorePointId, sealedAt: new Date(number).toISOString() };
      const { text } = encodeManifest(one);
      await writeFile(join(world.folder, 'manifests', manifest.vm.vmId, restorePointId), text);
    }
    await world.reopen();
    expect(world.repository.listSealed()).toHaveLength(201);
    const begun = performance.now();
    for (let number = 0; number < 10; number += 1)
      await remove(number.toString(16).padStart(32, '0') as RestorePointId);
    expect((performance.now() - begun) / 10).toBeLessThan(100);
  });
});

describe('flags', () => {
  test('keep and hold refuse a removal, also after a restart, until they are taken back', async () => {
    const [a] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    const { restorePointId: id } = a;
    const { repository } = world;
    expect(repository.flagsOf(id)).toEqual({ keep: false, hold: null, lockedUntil: null });
    expect(await repository.setFlags(id, { keep: true })).toEqual({ keep: true, hold: null, lockedUntil: null });
    expect(await repository.setFlags(id, { hold: 'audit 7' })).toMatchObject({ keep: true, hold: 'audit 7' });
    await world.reopen();
    expect(world.repository.listSealed()[0]).toMatchObject({ flags: { keep: true, hold: 'audit 7' } });
    await expect(remove(id)).rejects.toThrow('held: audit 7');
    await world.repository.setFlags(id, { hold: null });
    await expect(remove(id)).rejects.toEqual(held);
    await world.repository.setFlags(id, { keep: false });
    await remove(id);
    await expect(world.repository.setFlags(id, { keep: true })).rejects.toEqual(unknown);
    expect(() => world.repository.flagsOf(id)).toThrow(unknown);
  });

  test('a reason has to be one', async () => {
    const { restorePointId: id } = await sealedFull(1, diskOf(1));
    for (const hold of ['', 'x'.repeat(1025)])
      await expect(world.repository.setFlags(id, { hold })).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    expect(world.repository.flagsOf(id)).toMatchObject({ hold: null });
  });

  test('that are damaged, or of another restore point, hold it', async () => {
    const [a, b] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await world.repository.setFlags(a.restorePointId, { keep: false });
    const file = join(world.folder, 'flags', a.restorePointId);
    await world.repository.setFlags(b.restorePointId, { keep: true });
    for (const text of ['not what it was', await readFile(join(world.folder, 'flags', b.restorePointId), 'utf8')]) {
      await writeFile(file, text);
      await world.reopen();
      await expect(remove(a.restorePointId)).rejects.toEqual(held);
      await expect(world.repository.setFlags(a.restorePointId, { keep: false })).rejects.toEqual(held);
      expect(world.repository.flagsOf(a.restorePointId)).toMatchObject({ keep: true });
    }
  });

  test('go with their restore point, not before', async () => {
    const [a] = [await sealedFull(1, diskOf(1)), await sealedFull(2, diskOf(1, 'b'))];
    await world.repository.setFlags(a.restorePointId, { keep: true });
    await world.repository.setFlags(a.restorePointId, { keep: false });
    const file = join(world.folder, 'flags', a.restorePointId);
    await remove(a.restorePointId);
    await world.collect();
    await stat(file);
    for (let times = 0; times < 2; times += 1) {
      world.pass(DAY_MS);
      await world.collect();
    }
    await expect(stat(file)).rejects.toMatchObject({ code: 'ENOENT' });
  });
});

import { readdir, rm, stat, truncate } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import type { RepairReport } from '../../../schema/domain/maintenance.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { flipBit, packPath, packsOf, placeOfBlock, rotBlock } from '../../../tests/fixtures/repository/damage.ts';
import { openFilesIn } from '../../../tests/fixtures/open-files.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { MIB, planOf } from '../../../tests/fixtures/repository/test-repository.ts';
import { diskOf, unwatched } from '../../../tests/fixtures/repository/verbs.ts';
import { layout } from '../storage/layout.ts';

let world: Maintained;
const { openPoint, assign, send, seal, sealedFull, check, repair, instead } = inEachTest(
  createMaintained,
  (made) => (world = made),
);

const disk = diskOf(3);
type Hit = { sealed: SealOutcome; place: RecordPlace; path: string };

/** One restore point, its packs closed; block 1 lies in `path`. */
async function sealedOne(): Promise<Hit> {
  const sealed = await sealedFull(1, disk);
  await world.reopen();
  const place = await placeOfBlock(world, sealed.restorePointId, 1);
  return { sealed, place, path: packPath(world, place.pack) };
}

const nothing: RepairReport = {
  packsSalvaged: 0,
  recordsSaved: 0,
  recordsLost: 0,
  packsRestored: 0,
  damaged: [],
  whole: 1,
};
const filesIn = async (): Promise<string[]> =>
  (await readdir(world.folder, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile() && entry.name !== 'damaged')
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();

type Case = {
  what: string;
  damage: (hit: Hit) => Promise<unknown>;
  /** Besides a full check before. */
  report: (hit: Hit) => Partial<RepairReport>;
  isWhole: boolean;
};

const cases: Case[] = [
  { what: 'nothing', damage: async () => undefined, report: () => nothing, isWhole: true },
  {
    what: 'a footer',
    damage: ({ path }) => flipBit(path, -10),
    report: () => ({ packsSalvaged: 1, recordsSaved: 3 }),
    isWhole: true,
  },
  {
    what: 'the header of a record, of which the footer has another',
    damage: ({ path, place }) => flipBit(path, place.offset + 50),
    report: () => ({ packsSalvaged: 1, recordsSaved: 3 }),
    isWhole: true,
  },
  {
    what: 'a payload',
    damage: ({ path, place }) => flipBit(path, place.offset + RECORD_HEADER_BYTES + 1),
    report: ({ sealed: { restorePointId } }) => ({
      packsSalvaged: 1,
      recordsSaved: 2,
      recordsLost: 1,
      damaged: [{ restorePointId, missingBytes: MIB }],
      whole: 0,
    }),
    isWhole: false,
  },
  {
    what: 'a footer and the header of a record',
    damage: async ({ path, place }) => {
      await flipBit(path, -10);
      await flipBit(path, place.offset + 50);
    },
    report: () => ({ packsSalvaged: 1, recordsSaved: 3 }),
    isWhole: true,
  },
  {
    what: 'a footer, cut, and the header of a record',
    damage: async ({ path, place }) => {
      await truncate(path, (await stat(path)).size - 64 - 3 * 136);
      await flipBit(path, place.offset + 50);
    },
    report: ({ sealed: { restorePointId } }) => ({
      packsSalvaged: 1,
      recordsSaved: 2,
      damaged: [{ restorePointId, missingBytes: MIB }],
      whole: 0,
    }),
    isWhole: false,
  },
  {
    what: 'the header of a pack, of which the index knows nothing any more',
    damage: async ({ path }) => {
      await flipBit(path, 20);
      await world.reopen({ loseIndex: true });
    },
    report: () => ({ packsSalvaged: 1, recordsSaved: 3 }),
    isWhole: true,
  },
  {
    what: 'the header of a pack of pages, of which the index knows nothing any more',
    damage: async () => {
      const [pages] = await packsOf(world, 'pages');
      await flipBit(packPath(world, pages!, 'pages'), 20);
      await world.reopen({ loseIndex: true });
    },
    report: () => ({ packsSalvaged: 1, recordsSaved: 1 }),
    isWhole: true,
  },
  {
    what: 'packs that are in the trash',
    damage: async ({ place }) => {
      const [pages] = await packsOf(world, 'pages');
      for (const name of [layout.closedPack('blocks', place.pack), layout.closedPack('pages', pages!)])
        await world.storage.store.moveToTrash({ epoch: 1, name });
      await world.reopen({ loseIndex: true });
    },
    report: () => ({ packsRestored: 2 }),
    isWhole: true,
  },
  {
    what: 'a manifest',
    damage: ({ sealed }) =>
      flipBit(join(world.folder, 'manifests', sealed.manifest.vm.vmId, sealed.restorePointId), 200),
    report: () => ({}),
    isWhole: true,
  },
  {
    what: 'a pack that is gone',
    damage: ({ path }) => rm(path),
    report: ({ sealed: { restorePointId } }) => ({ damaged: [{ restorePointId, missingBytes: 3 * MIB }], whole: 0 }),
    isWhole: false,
  },
];

describe.each(cases)('$what', ({ damage, report, isWhole }) => {
  test('a dry run says what will come of it, and changes nothing; then what is sound is there again', async () => {
    const hit = await sealedOne();
    await damage(hit);
    await check();
    const marks = world.repository.listSealed().map(({ mark }) => mark);
    const before = await filesIn();
    const expected = { ...nothing, ...report(hit) };
    expect(await repair(true)).toEqual(expected);
    expect(await filesIn()).toEqual(before);
    expect(world.repository.listSealed().map(({ mark }) => mark)).toEqual(marks);
    expect(await repair()).toEqual(expected);
    const after = await check();
    expect(after.damages.filter(({ kind }) => kind === 'pack')).toEqual(
      after.damages.filter(({ why }) => why.message === 'its pack is missing'),
    );
    expect(after.marked).toEqual(isWhole ? [] : [hit.sealed.restorePointId]);
    for (const loseIndex of [false, true]) {
      await world.reopen({ loseIndex });
      expect(await repair()).toEqual({ ...nothing, damaged: expected.damaged, whole: expected.whole });
      if (isWhole) expect((await world.restore(hit.sealed)).equals(disk)).toBe(true);
    }
  });
});

test('what it could not save the next session heals; a collection then takes what was replaced', async () => {
  const { sealed } = await sealedOne();
  await rotBlock(world, sealed.restorePointId, 1);
  await check();
  await repair();
  expect(world.trash()).toHaveLength(1);
  const point = await openPoint(2);
  const plan = planOf(disk.length, { mode: 'cbt', baseRestorePointId: sealed.restorePointId });
  await send({ assignment: await assign(point, plan), disk, changed: [] });
  await seal(point);
  expect(await check({ depth: 'quick' })).toMatchObject({ healed: [sealed.restorePointId], damages: [] });
  for (let times = 0; times < 3; times += 1) {
    expect(await world.collect()).toMatchObject({ stopped: null, packsRestored: 0 });
    world.pass(48 * 3_600_000);
  }
  expect(world.trash()).toEqual([]);
  expect((await world.restore(sealed)).equals(disk)).toBe(true);
});

test('what is locked stays where it is; what could not be found is copied, once', async () => {
  await instead(() => createMaintained({ lockDays: 30 }));
  const { sealed, path, place } = await sealedOne();
  await flipBit(path, place.offset + RECORD_HEADER_BYTES + 1);
  await check();
  expect(await repair()).toMatchObject({ packsSalvaged: 0, damaged: [{ missingBytes: MIB }] });
  await flipBit(path, place.offset + RECORD_HEADER_BYTES + 1);
  await flipBit(path, 20);
  await world.reopen({ loseIndex: true });
  await check();
  expect(await repair()).toMatchObject({ packsSalvaged: 1, recordsSaved: 3, damaged: [] });
  expect(await repair()).toMatchObject({ packsSalvaged: 0, damaged: [] });
  await world.reopen({ loseIndex: true });
  expect(await repair()).toMatchObject({ packsSalvaged: 0, damaged: [] });
  expect((await world.restore(sealed)).equals(disk)).toBe(true);
  expect(world.trash()).toEqual([]);
  await unprotect();
});

/** Else the folder cannot be removed. */
async function unprotect(): Promise<void> {
  const { store } = world.storage;
  for (const shelf of ['manifests', 'packs', 'meta']) await store.protect(await store.list(shelf), false);
}

test('whatever call fails, nothing is lost, and the next repair ends it', async () => {
  const changing = /append|finish|put|createSync|moveToTrash|sync|replace/;
  const { sealed, path } = await sealedOne();
  await flipBit(path, -10);
  await check();
  let done = false;
  for (let after = 0; !done; after += 1) {
    let seen = 0;
    world.before(
      ({ operation }) => changing.test(operation) && (seen += 1) > after,
      () => Promise.reject(new Error('the process ended')),
    );
    done = await repair().then(
      () => true,
      () => false,
    );
    if (done) expect(after).toBeGreaterThanOrEqual(3);
    // From here on nothing fails, also when it did not come to that.
    world.before(
      () => false,
      async () => undefined,
    );
    await world.reopen({ clean: false });
    expect((await world.restore(sealed)).equals(disk)).toBe(true);
  }
  expect((await check()).damages).toEqual([]);
});

test('it ends with the reason of its signal, and keeps what it did', async () => {
  const { path } = await sealedOne();
  await flipBit(path, -10);
  const signal = AbortSignal.abort(new Error('enough'));
  await expect(world.repository.repair({ ...unwatched(), signal, dryRun: false })).rejects.toThrow('enough');
  expect(await repair()).toMatchObject({ packsSalvaged: 1 });
});

test('it leaves no pack open, whatever ends it', async () => {
  await sealedFull(1, disk);
  await world.reopen();
  // Of the one page: who looks at packs as a whole reads other lengths.
  const pageBytes = RECORD_HEADER_BYTES + (disk.length / MIB) * 32;
  world.before(
    ({ operation, name, bytes }) => operation === 'read' && name.startsWith('meta/') && bytes === pageBytes,
    () => Promise.reject(new Error('as planned')),
  );
  await expect(repair()).rejects.toThrow('as planned');
  expect(await openFilesIn(join(world.folder, 'meta'))).toEqual([]);
});

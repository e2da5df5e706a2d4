import { readFile, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { lineageId, type RestorePointId, vmId } from '../../../schema/domain/ids.ts';
import type { CheckReport, Damage, MaintenanceProgress } from '../../../schema/domain/maintenance.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { RecordPlace } from '../../../schema/domain/seams.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { flipBit, packPath, packsOf, placeOfBlock, rotBlock } from '../../../tests/fixtures/repository/damage.ts';
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
import { diskOf, wholeCheck } from '../../../tests/fixtures/repository/verbs.ts';

let world: TestRepository;
const { openPoint, assign, send, seal, sealedFull, check, instead } = inEachTest(
  createTestRepository,
  (made) => (world = made),
);

const other = { vm: { ...specOf(runOf(2)).vm, vmId: vmId('other') }, lineage: lineageId('0f'.repeat(8)) };
const mine = diskOf(3);
const theirs = Buffer.concat([diskOf(2, 'b'), mine.subarray(MIB, 2 * MIB)]);

/** Two VMs; block 1 of the first is block 2 of the other. Every pack is closed. */
async function twoVms(): Promise<{ first: SealOutcome; second: SealOutcome }> {
  const first = await sealedFull(1, mine);
  await world.reopen();
  const second = await sealedFull(2, theirs, other);
  await world.reopen();
  return { first, second };
}

const clean = { whole: true, openPacks: 0, damages: [], marked: [], healed: [] };
const whyOf = (message: string) => ({ code: 'DAMAGED_BLOCK', message });

describe('what is sound', () => {
  test('packs that are still open are closed and read; how many stay open is told', async () => {
    await sealedFull(1, diskOf(3));
    // Nobody closes those of the lanes.
    expect(await check({ depth: 'full' })).toMatchObject({ ...clean, packs: 1, openPacks: 1 });
    await instead(() => createTestRepository({ open: { closePacks: () => world.sink.close() } }));
    await sealedFull(1, diskOf(3));
    expect(await packsOf(world, 'blocks')).toEqual([]);
    const report = await check({ depth: 'full' });
    expect(report).toMatchObject({ ...clean, packs: 2, openPacks: 0 });
    expect(report.checkedBytes).toBeGreaterThan(1000);
  });

  test('is said to be, at each depth and in each scope', async () => {
    const { first, second } = await twoVms();
    expect(await check({ depth: 'quick' })).toEqual({
      ...clean,
      depth: 'quick',
      restorePoints: 2,
      packs: 4,
      checkedBytes: 0,
    });
    const sizes = await Promise.all(
      (['blocks', 'pages'] as const).map(async (contents) => {
        const files = (await packsOf(world, contents)).map((pack) => readFile(packPath(world, pack, contents)));
        return (await Promise.all(files)).reduce((sum, bytes) => sum + bytes.length, 0);
      }),
    );
    const checkedBytes = sizes[0]! + sizes[1]!;
    for (const depth of ['sums', 'full'] as const)
      expect(await check({ depth })).toEqual({ ...clean, depth, restorePoints: 2, packs: 4, checkedBytes });
    // The other VM has a block in a pack of the first.
    expect(await check({ vmId: first.manifest.vm.vmId })).toMatchObject({ ...clean, restorePoints: 1, packs: 2 });
    expect(await check({ restorePointId: second.restorePointId })).toMatchObject({
      ...clean,
      restorePoints: 1,
      packs: 3,
    });
    expect(world.repository.listSealed().map(({ mark }) => mark)).toEqual([null, null]);
  });

  test('an empty repository; a restore point that is not there', async () => {
    expect(await check()).toMatchObject({ ...clean, restorePoints: 0, packs: 0 });
    const restorePointId = 'ab'.repeat(16) as RestorePointId;
    await expect(check({ restorePointId })).rejects.toMatchObject({ code: 'RESTORE_POINT_NOT_FOUND' });
  });
});

type Hit = { first: SealOutcome; second: SealOutcome; place: RecordPlace };
type Case = {
  what: string;
  /** To the pack or page of block 1 of the first VM. */
  damage: (hit: Hit) => Promise<void>;
  /** Found by a quick check too. */
  quick: boolean;
  damages: (hit: Hit) => Partial<Damage>[];
  hits: 'both' | 'first' | 'none';
};

const record = ({ place, first, second }: Hit, message: string): Partial<Damage> => ({
  kind: 'record',
  pack: place.pack,
  offset: place.offset,
  why: whyOf(message),
  restorePoints: [first.restorePointId, second.restorePointId],
});
const pack = ({ place }: Hit, message: string, restorePoints: RestorePointId[] = []): Partial<Damage> => ({
  kind: 'pack',
  name: `pack ${place.pack}`,
  pack: place.pack,
  why: whyOf(message),
  restorePoints,
});
const pagesPack = async (): Promise<string> => packPath(world, await placeOfPages(), 'pages');
/** Of the first VM. */
let placeOfPages: () => Promise<string>;

const cases: Case[] = [
  {
    what: 'a bit in the header of a record',
    damage: ({ place }) => flipBit(packPath(world, place.pack), place.offset + 45),
    quick: false,
    damages: (hit) => [record(hit, 'its header is damaged')],
    hits: 'both',
  },
  {
    what: 'a bit in the payload of a record',
    damage: ({ place }) => flipBit(packPath(world, place.pack), place.offset + RECORD_HEADER_BYTES + 3),
    quick: false,
    damages: (hit) => [record(hit, 'its payload is damaged')],
    hits: 'both',
  },
  {
    what: 'a bit in the entries of a footer',
    damage: ({ place }) => flipBit(packPath(world, place.pack), -100),
    quick: false,
    damages: (hit) => [pack(hit, 'its footer is damaged')],
    hits: 'none',
  },
  {
    what: 'a bit in the end of a footer',
    damage: ({ place }) => flipBit(packPath(world, place.pack), -10),
    quick: true,
    damages: (hit) => [pack(hit, 'its footer is damaged')],
    hits: 'none',
  },
  {
    what: 'a bit in a page',
    damage: async () => flipBit(await pagesPack(), 64 + RECORD_HEADER_BYTES + 3),
    quick: true,
    damages: ({ first }) => [
      { kind: 'page', offset: 64, why: whyOf('its payload is damaged'), restorePoints: [first.restorePointId] },
    ],
    hits: 'first',
  },
  {
    what: 'a bit in a manifest',
    damage: ({ first }) => flipBit(manifestPath(first), 100),
    quick: true,
    damages: ({ first }) => [
      {
        kind: 'manifest',
        pack: null,
        why: { code: 'REPOSITORY_CORRUPT', message: expect.any(String) as string },
        restorePoints: [first.restorePointId],
      },
    ],
    hits: 'first',
  },
  {
    what: 'a missing pack',
    damage: ({ place }) => rm(packPath(world, place.pack)),
    quick: true,
    damages: (hit) => [
      pack(hit, 'its pack is missing', [hit.first.restorePointId, hit.second.restorePointId]),
      {
        kind: 'record',
        pack: null,
        why: whyOf('it is nowhere in the repository'),
        restorePoints: [hit.first.restorePointId],
      },
      { kind: 'record', restorePoints: [hit.first.restorePointId, hit.second.restorePointId] },
      { kind: 'record', restorePoints: [hit.first.restorePointId] },
    ],
    hits: 'both',
  },
  {
    what: 'a torn tail',
    damage: ({ place }) => truncate(packPath(world, place.pack), place.offset + RECORD_HEADER_BYTES + 5),
    quick: true,
    damages: (hit) => [
      pack(hit, 'its footer is damaged'),
      {
        kind: 'record',
        offset: hit.place.offset,
        restorePoints: [hit.first.restorePointId, hit.second.restorePointId],
      },
      { kind: 'record', why: whyOf('its pack is cut short'), restorePoints: [hit.first.restorePointId] },
    ],
    hits: 'both',
  },
];

const manifestPath = ({ restorePointId, manifest }: SealOutcome): string =>
  join(world.folder, 'manifests', manifest.vm.vmId, restorePointId);

describe.each(cases)('$what', ({ damage, quick, damages, hits }) => {
  async function damaged(): Promise<Hit> {
    const first = await sealedFull(1, mine);
    await world.reopen();
    const [pages] = await packsOf(world, 'pages');
    placeOfPages = async () => pages!;
    const second = await sealedFull(2, theirs, other);
    await world.reopen();
    const hit = { first, second, place: await placeOfBlock(world, first.restorePointId, 1) };
    await damage(hit);
    return hit;
  }
  const hitOf = ({ first, second }: Hit): RestorePointId[] =>
    hits === 'none' ? [] : [first, ...(hits === 'both' ? [second] : [])].map(({ restorePointId }) => restorePointId);
  const sorted = (report: CheckReport): CheckReport => ({
    ...report,
    marked: report.marked.toSorted(),
    damages: report.damages.map((one) => ({ ...one, restorePoints: one.restorePoints.toSorted() })),
  });

  test('is named with whom it hits; who is hit is marked', async () => {
    const hit = await damaged();
    const expected = expect.arrayContaining(
      damages(hit).map(
        (one) => expect.objectContaining({ ...one, restorePoints: one.restorePoints!.toSorted() }) as Damage,
      ),
    ) as Damage[];
    if (!quick) expect(await check({ depth: 'quick' })).toMatchObject(clean);
    for (const depth of quick ? (['quick', 'full'] as const) : (['full'] as const)) {
      const report = sorted(await check({ depth }));
      expect(report).toMatchObject({ whole: true, marked: hitOf(hit).toSorted(), healed: [] });
      expect(report.damages).toEqual(expected);
      expect(report.damages).toHaveLength(damages(hit).length);
    }
    for (const { restorePointId, mark } of world.repository.listSealed())
      expect(mark?.state).toBe(hitOf(hit).includes(restorePointId) ? 'damaged' : undefined);
  });

  test('is known after a restart, also without the index', async () => {
    const hit = await damaged();
    await check();
    await world.reopen({ loseIndex: true });
    for (const id of hitOf(hit))
      expect(world.repository.markOf(id)).toMatchObject({ restorePointId: id, state: 'damaged' });
    const report = await check({ depth: 'quick' });
    expect(report.marked.toSorted()).toEqual(hitOf(hit).toSorted());
  });
});

describe('a mark', () => {
  test('goes when the next session has healed what it could, on a disk that did not change', async () => {
    const { first, second } = await twoVms();
    await rotBlock(world, first.restorePointId, 1);
    expect((await check()).marked).toHaveLength(2);
    const point = await openPoint(3);
    const base = { mode: 'cbt' as const, baseRestorePointId: first.restorePointId };
    const assignment = await assign(point, planOf(mine.length, base));
    expect(assignment.alsoRead).toEqual([{ offset: MIB, length: MIB }]);
    await send({ assignment, disk: mine, changed: [] });
    await seal(point);
    const { healed, ...report } = await check({ depth: 'quick' });
    expect(healed.toSorted()).toEqual([first.restorePointId, second.restorePointId].toSorted());
    expect(report).toMatchObject({ damages: [], marked: [] });
    await world.reopen({ loseIndex: true });
    expect(await check()).toMatchObject(clean);
    expect((await handRestore(world, second.restorePointId, DISK)).equals(theirs)).toBe(true);
  });

  test('goes when the medium gives again what was there', async () => {
    const { first } = await twoVms();
    const place = await rotBlock(world, first.restorePointId, 1);
    await check();
    await flipBit(packPath(world, place.pack), place.offset + RECORD_HEADER_BYTES + 1);
    expect((await check()).marked).toHaveLength(2);
    await world.reopen();
    expect((await check()).healed).toHaveLength(2);
    expect((await handRestore(world, first.restorePointId, DISK)).equals(mine)).toBe(true);
  });

  test('that cannot be read is made anew', async () => {
    const { first } = await twoVms();
    await rotBlock(world, first.restorePointId, 0);
    await check();
    await writeFile(join(world.folder, 'marks', first.restorePointId), 'not what it was');
    await world.reopen();
    expect(world.repository.markOf(first.restorePointId)).toBeNull();
    await check({ depth: 'quick' });
    expect(world.repository.markOf(first.restorePointId)).toMatchObject({
      state: 'damaged',
      why: { code: 'DAMAGED_BLOCK', message: `${MIB} bytes cannot be read; the first of them: disk d0, block 0` },
    });
  });
});

describe('a bound', () => {
  test('ends it; the next goes on with the longest unread, and the one after the last begins anew', async () => {
    await twoVms();
    const packs: number[] = [];
    for (let part = 1; part <= 4; part += 1) {
      const report = await check({ maxBytes: 1 });
      expect(report.whole).toBe(part === 4);
      packs.push(report.packs);
      if (part === 2) await world.reopen();
    }
    expect(packs).toEqual([1, 1, 1, 1]);
    expect(await check({ maxMs: 0 })).toMatchObject({ whole: false, packs: 1 });
    expect(await check()).toMatchObject({ whole: true, packs: 3 });
    expect(await check()).toMatchObject({ whole: true, packs: 4 });
  });

  test('damage found in one part is told with the others', async () => {
    const { first } = await twoVms();
    await rotBlock(world, first.restorePointId, 0);
    const reports = [];
    for (let part = 1; part <= 4; part += 1) reports.push(await check({ maxBytes: 1 }));
    expect(reports.at(-1)).toMatchObject({ whole: true, marked: [first.restorePointId] });
    expect(reports.at(-1)!.damages).toMatchObject([{ kind: 'record', restorePoints: [first.restorePointId] }]);
  });

  test('other checks in between do not disturb it', async () => {
    const { first } = await twoVms();
    expect(await check({ maxBytes: 1 })).toMatchObject({ whole: false });
    expect(await check({ vmId: first.manifest.vm.vmId })).toMatchObject({ whole: true, packs: 2 });
    expect(await check({ depth: 'sums' })).toMatchObject({ whole: true, packs: 4 });
    const { packs } = await check();
    expect(packs).toBeGreaterThan(0);
    expect(packs).toBeLessThan(4);
  });
});

test('it tells how far it is, and ends with the reason of its signal', async () => {
  await twoVms();
  const told: MaintenanceProgress[] = [];
  const onProgress = (progress: MaintenanceProgress): void => void told.push(progress);
  await world.repository.check(wholeCheck, { signal: new AbortController().signal, onProgress });
  expect(told.map(({ step }) => step)).toEqual(['reading packs', 'walking maps']);
  expect(told[0]!.totalBytes).toBeGreaterThan(0);
  await expect(
    world.repository.check(wholeCheck, { signal: AbortSignal.abort(new Error('enough')), onProgress }),
  ).rejects.toThrow('enough');
});

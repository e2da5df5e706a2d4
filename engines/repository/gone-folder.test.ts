/** The folder goes away under an open repository: an unmounted disk, a move. Nothing is sealed on, or said of, what lies there instead. */
import { cp, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { handRestore } from '../../tests/fixtures/repository/hand-restore.ts';
import {
  createTestRepository,
  DISK,
  planOf,
  sealOf,
  specOf,
  runOf,
  type TestRepository,
} from '../../tests/fixtures/repository/test-repository.ts';
import { diskOf, unwatched, verbsOf } from '../../tests/fixtures/repository/verbs.ts';

let world: TestRepository;
let away: string;
beforeEach(async () => {
  world = await createTestRepository();
  away = join(dirname(world.folder), 'away');
});
afterEach(() => world.close());
const { openPoint, assign, send, seal, sealedFull, check } = verbsOf(() => world);

const inPlace: [string, () => Promise<void>][] = [
  ['an empty folder', async () => void (await mkdir(world.folder))],
  ['no folder', async () => undefined],
  [
    'another repository',
    async () => {
      const other = await createTestRepository();
      await cp(other.folder, world.folder, { recursive: true });
      await other.close();
    },
  ],
];
const filesIn = async (folder: string): Promise<string[]> =>
  (await readdir(folder, { recursive: true }).catch((): string[] => ['no folder'])).sort();

test.each(inPlace)('with %s in its place nothing is done; back again, it goes on', async (_, put) => {
  const disk = diskOf(3);
  const sealed = await sealedFull(1, disk);
  const next = diskOf(4, 'b');
  const point = await openPoint(2);
  await send({ assignment: await assign(point, planOf(next.length)), disk: next });
  await rename(world.folder, away);
  await put();
  const before = await filesIn(world.folder);
  const { repository } = world;
  const { restorePointId } = sealed;
  const refused: Record<string, () => Promise<unknown>> = {
    open: () => repository.openRestorePoint(specOf(runOf(3))),
    assign: () => assign(point, planOf(next.length), 2),
    seal: () => repository.seal(sealOf(point.restorePointId, point.run)),
    abort: () => repository.abort(point),
    survey: () => repository.survey(),
    check: () => check(),
    collect: () => repository.collect(unwatched()),
    remove: () => repository.removeRestorePoint(restorePointId, { last: true }),
    flags: () => repository.setFlags(restorePointId, { keep: true }),
    statistics: () => repository.statistics(),
    restore: () => handRestore(world, restorePointId, DISK),
  };
  for (const [verb, work] of Object.entries(refused))
    await expect(work(), verb).rejects.toMatchObject({ code: 'REPOSITORY_NOT_ONE' });
  expect(await filesIn(world.folder)).toEqual(before);
  await rm(world.folder, { recursive: true, force: true });
  await rename(away, world.folder);
  await seal(point);
  expect(await check()).toMatchObject({ damages: [] });
  expect(await handRestore(world, restorePointId, DISK)).toEqual(disk);
  expect(await handRestore(world, point.restorePointId, DISK)).toEqual(next);
  await world.reopen();
  expect(await handRestore(world, point.restorePointId, DISK)).toEqual(next);
});

test('when it goes away during a restore, no damage is written down', async () => {
  const { restorePointId } = await sealedFull(1, diskOf(3));
  const { restoreSource } = world.repository;
  await restoreSource.begin('one', { purpose: 'restore', restorePointId, diskKey: DISK });
  const { places } = await restoreSource.resolve('one', 0);
  await rename(world.folder, away);
  await mkdir(world.folder);
  const failure = { code: 'DAMAGED_BLOCK' as const, message: 'its pack is not there', details: {} };
  await expect(restoreSource.damaged('one', 0, 0, places[0]!, failure)).rejects.toMatchObject({
    code: 'REPOSITORY_NOT_ONE',
  });
  await rm(world.folder, { recursive: true });
  await rename(away, world.folder);
  expect(await check()).toMatchObject({ damages: [] });
});

/**
 * Backups on a disk of which any one call fails, that is full at any size, or reads and writes by halves. Verbs are said
 * again, as activities are, then by a next process; in the end everything that was told holds, also after a power cut.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { checkTold } from '../../tests/fixtures/repository/check-told.ts';
import { FaultyDisk } from '../../tests/fixtures/repository/faulty-disk.ts';
import { begin, driveOn, end, type Life, threeDays, type Told } from '../../tests/fixtures/repository/run-life.ts';

/** So many of the calls are made to fail, one in each run; with more, all of them. */
const SAMPLES = Number(process.env['TIDEMARK_CUT_ROUNDS'] ?? 1) > 1 ? Infinity : 20;
const TRIES_PER_LIFE = 2;
const MAX_LIVES = 3;

const runs = threeDays();
let root: string;
beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'td-faults-'));
});
afterAll(() => rmSync(root, { recursive: true, force: true }));
let count = 0;
/** Another each time: a disk that is new is not one that lost its repository. */
const noIndex = (): string => join(root, `none-${(count += 1)}`);

/** A verb that failed is said again in the same process; `mend` is called first. */
const patient =
  (failures: unknown[], mend: () => void) =>
  async <T>(verb: () => Promise<T>): Promise<T> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await verb();
      } catch (error) {
        if (attempt >= TRIES_PER_LIFE || errorCodeOf(error)?.startsWith('RESTORE_POINT')) throw error;
        failures.push(error);
        mend();
      }
    }
  };

/** All runs to their ends, in as many lives as that takes. What was told, what failed, and the disk in the end. */
async function liveThrough(first: FaultyDisk, mend = (): void => undefined) {
  const told: Told[] = [];
  const failures: unknown[] = [];
  let disk = first;
  for (let assignment = 1; ; assignment += 1) {
    try {
      const life = await begin(disk, noIndex(), assignment);
      const call = patient(failures, mend);
      for (const run of runs) await driveOn(life, run, { assignment, tell: (one) => told.push(one), call });
      return { life, told, failures, disk };
    } catch (error) {
      failures.push(error);
      mend();
      if (assignment >= MAX_LIVES) throw error;
      disk = disk.afterKill();
    }
  }
}

async function checkAll({ life, told, disk }: { life: Life; told: Told[]; disk: FaultyDisk }): Promise<void> {
  await checkTold(life, disk, told, runs);
  const after = disk.afterCrash('nothing');
  await checkTold(await begin(after, noIndex(), 99), after, told, runs);
}

async function countPoints(): Promise<{ points: number; bytes: number }> {
  const disk = new FaultyDisk();
  const { failures } = await liveThrough(disk);
  expect(failures).toEqual([]);
  const bytes = [...disk.files().values()].reduce((sum, { length }) => sum + length, 0);
  return { points: disk.points, bytes };
}

test('any one call fails', { timeout: 600_000 }, async () => {
  const { next } = seeded();
  const { points } = await countPoints();
  const all = Array.from({ length: points }, (_, at) => at + 1);
  const chosen = SAMPLES >= points ? all : Array.from({ length: SAMPLES }, () => all[next(points)]!);
  for (const point of chosen) {
    const what = next(2) === 0 ? 'EIO' : 'ENOSPC';
    try {
      const disk = new FaultyDisk();
      disk.failAt(point, what);
      await checkAll(await liveThrough(disk));
    } catch (error) {
      throw new Error(`call ${point} of ${points} failed with ${what}: ${String(error)}`, { cause: error });
    }
  }
});

describe.each(['EIO', 'ENOSPC'] as const)('one sync of a ledger that fails with %s', (what) => {
  test.each([
    ['and is cut back', false],
    ['and cannot be cut back', true],
  ])('%s: the same process goes on with the next try', async (_, cutFails) => {
    const disk = new FaultyDisk();
    const ofLedger = { what, path: /ledger/, times: 1 };
    // Past the one of a new ledger, and the first window of the first disk.
    disk.fail({ ...ofLedger, call: 'sync', after: 2 });
    if (cutFails) disk.fail({ ...ofLedger, call: 'truncate', after: 1 });
    const told: Told[] = [];
    const failures: unknown[] = [];
    const life = await begin(disk, noIndex(), 1);
    const call = patient(failures, () => undefined);
    for (const run of runs) await driveOn(life, run, { assignment: 1, tell: (one) => told.push(one), call });
    const code = what === 'EIO' ? 'STORAGE_ERROR' : 'REPOSITORY_FULL';
    expect(failures).toEqual([expect.objectContaining({ code })]);
    const words = told.map((one) => one.what).filter((word) => word !== 'fence');
    const transferred = ['opened', 'acknowledged', 'acknowledged'];
    expect(words).toEqual(['sealed', 'sealed', 'aborted'].flatMap((decision) => [...transferred, decision]));
    await checkAll({ life, told, disk });
  });
});

test('the disk is full at any size; with room it goes on', { timeout: 600_000 }, async () => {
  const { bytes } = await countPoints();
  let refused = 0;
  for (let room = 0; room < bytes; room += Math.ceil(bytes / Math.min(SAMPLES, 100))) {
    const disk = new FaultyDisk();
    disk.setRoom(room);
    try {
      const outcome = await liveThrough(disk, () => disk.setRoom(2 * bytes + 2 ** 20));
      for (const failure of outcome.failures) expect(failure).toMatchObject({ code: 'REPOSITORY_FULL' });
      refused += outcome.failures.length;
      await checkAll(outcome);
    } catch (error) {
      throw new Error(`room for ${room} of ${bytes} bytes: ${String(error)}`, { cause: error });
    }
  }
  expect(refused).toBeGreaterThan(5);
});

test('reads and writes that give less than was asked are said on', async () => {
  const disk = new FaultyDisk();
  for (const call of ['read', 'write'] as const) disk.fail({ call, what: 'short' });
  const outcome = await liveThrough(disk);
  expect(outcome.failures).toEqual([]);
  await checkAll(outcome);
  await end(outcome.life);
});

test('a part of the disk that cannot be read any more costs what lies there, and nothing else', async () => {
  const { disk, told } = await liveThrough(new FaultyDisk());
  const manifests = [...disk.files().keys()].filter((path) => path.includes('/manifests/'));
  for (const lost of manifests) {
    const damaged = disk.afterKill();
    damaged.fail({ call: 'read', what: 'EIO', path: new RegExp(lost) });
    const { repository } = await begin(damaged, noIndex(), 5);
    expect(repository.listSealed()).toHaveLength(manifests.length - 1);
  }
  expect(told.filter(({ what }) => what === 'sealed')).toHaveLength(manifests.length);
});

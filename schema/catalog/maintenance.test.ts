import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { daysUntilFull } from '../../engines/scheduler/forecast.ts';
import { job, site, startTestCatalog, type TestCatalog } from '../../tests/fixtures/control.ts';
import { repositoryId, type RestorePointId, restorePointId, runKey, vmId } from '../domain/ids.ts';
import { noFlags, type RestorePointSign, type SealedRestorePoint } from '../domain/maintenance-sessions.ts';
import type { RepositoryStatistics } from '../domain/maintenance.ts';
import type { Manifest } from '../domain/restore-point.ts';
import { loadLineagePolicies } from './absent-vms.ts';
import type { CatalogDatabase } from './connection.ts';
import { importSessions } from './imported-sessions.ts';
import { enqueueRequest } from './leases.ts';
import { listOutcomes, recordOutcome } from './maintenance-outcomes.ts';
import { listRepositoryDays, loadRepositoryFigures, recordSpace, recordStatistics } from './repository-figures.ts';
import { storeMarks, storePage, storePoints, storeRemoved, storeSigns } from './repository-restore-points.ts';
import { loadResourceStates } from './resources.ts';
import { listRestorePoints, listStoredBytes, loadRestorePoint, recordRestorePoint } from './restore-points.ts';
import { loadRunOwners, recordRunOwner } from './run-owners.ts';
import { beginSession, listSessions, loadSession, updateSession } from './sessions.ts';
import { applySite } from './site.ts';

let catalog: TestCatalog;
let db: CatalogDatabase;
beforeAll(async () => {
  catalog = await startTestCatalog();
  ({ db } = catalog);
});
afterAll(() => catalog?.close());
beforeEach(() => catalog.reset());

const main = repositoryId('main');
const id = (number: number): RestorePointId => restorePointId(String(number).padStart(32, '0'));
const at = (day: number): string => `2026-11-${String(day).padStart(2, '0')}T01:00:00.000Z`;
const conservation = { sizeBytes: 100, storedBytes: 25 };

function point(number: number, change: Partial<Manifest> = {}): SealedRestorePoint {
  const manifest = {
    format: 1,
    repository: 'main',
    restorePointId: id(number),
    run: `run${String(number).padStart(9, '0')}`,
    lineage: 'l1',
    vm: { vmId: 'a', hostId: 'h1', name: 'web' },
    jobId: 'nightly',
    sessionId: `s${number}`,
    nominalTime: at(number),
    takenAt: at(number),
    sealedAt: at(number),
    baseRestorePointId: null,
    consistency: { asked: 'prefer', reached: 'crash', frozenMs: null },
    warnings: [],
    suspect: false,
    disks: [
      {
        diskKey: 'd0',
        sizeBytes: 100,
        readBytes: 60,
        sentBytes: 30,
        mode: 'full',
        reason: { code: 'first', message: 'the first' },
        conservation,
      },
    ],
    ...change,
  } as unknown as Manifest;
  return { restorePointId: id(number), manifestDigest: `d${number}`, manifest, mark: null, flags: noFlags };
}
const sign = (number: number, change: Partial<RestorePointSign> = {}): RestorePointSign => ({
  restorePointId: id(number),
  manifestDigest: `d${number}`,
  state: 'good',
  why: null,
  flags: null,
  ...change,
});
const page = (signs: RestorePointSign[], change = {}) => ({
  after: null,
  upTo: null,
  asOf: at(20),
  signs,
  trashed: [],
  ...change,
});
const storeSealed = (points: SealedRestorePoint[], day = 20): Promise<void> => storePoints(db, points, at(day));
const idsOf = async (filter = {}): Promise<string[]> =>
  (await listRestorePoints(db, filter)).map((each) => each.restorePointId).toSorted();

describe('restore points as their repository has them', () => {
  it('what is missing, or has another manifest, is asked for; marks and flags are taken over', async () => {
    await storeSealed([point(1), point(2), point(3)]);
    const flags = { keep: true, hold: 'evidence', lockedUntil: at(30) };
    const signs = [
      sign(1),
      sign(2, { state: 'damaged', why: 'pack p is gone', flags }),
      sign(3, { manifestDigest: 'other' }),
      sign(4),
    ];
    expect(await storePage(db, main, page(signs))).toEqual({
      missing: [id(3), id(4)],
      trashed: 0,
      changed: 1,
      removed: 0,
    });
    const [found] = (await listRestorePoints(db)).filter((each) => each.restorePointId === id(2));
    expect(found).toMatchObject({
      damaged: true,
      suspect: false,
      markReason: 'pack p is gone',
      keep: true,
      hold: 'evidence',
      lockedUntil: at(30),
    });
    await storeSealed([point(4), { ...point(3), manifestDigest: 'other' }]);
    expect(await storePage(db, main, page(signs))).toEqual({
      missing: [],
      trashed: 0,
      changed: 0,
      removed: 0,
    });
    expect(await storePage(db, main, page(signs.map((each) => sign(Number(each.restorePointId)))))).toEqual({
      missing: [id(3)],
      trashed: 0,
      changed: 1,
      removed: 0,
    });
  });

  it('rows of what is not there go, but only of that span and that repository, sealed before it was looked at', async () => {
    await storeSealed([1, 2, 5, 6].map((number) => point(number)));
    await recordRestorePoint(db, point(21));
    const other = { ...point(7), manifest: point(7, { repository: repositoryId('other') }).manifest };
    await storeSealed([other]);
    const span = page([sign(3)], { after: id(1), upTo: id(5) });
    const gone = [2, 5].map((number) => ({ restorePointId: id(number), vmName: 'web' }));
    expect(await storePage(db, main, span)).toMatchObject({ missing: [id(3)], changed: 0, removed: 2, gone });
    expect(await idsOf()).toEqual([id(1), id(6), id(7), id(21)]);
    // The last page has no end; what was sealed after it was made stays.
    expect(await storePage(db, main, page([], { after: id(5) }))).toMatchObject({ removed: 1 });
    expect(await idsOf()).toEqual([id(1), id(7), id(21)]);
  });

  it('rows whose seal is of the future go like others, once they were told of', async () => {
    const ahead = [1, 2].map((number) => point(number, { sealedAt: `2031-01-0${number}T00:00:00.000Z` }));
    for (const each of ahead) await recordRestorePoint(db, each);
    expect(await storePage(db, main, page([sign(1)], { asOf: at(19) }))).toMatchObject({ removed: 0 });
    expect(await storePage(db, main, page([]))).toMatchObject({ removed: 1 });
    // Nothing was said of it: it may have been sealed after the page was made.
    expect(await idsOf()).toEqual([id(2)]);
  });

  it('lists come in the order of seals: a clock that was behind makes none older', async () => {
    await storeSealed([point(1), point(3, { takenAt: '2026-09-01T00:00:00.000Z' }), point(2)]);
    expect((await listRestorePoints(db)).map((each) => each.restorePointId)).toEqual([id(3), id(2), id(1)]);
  });

  it('those in the trash are in no list but their own, until they cannot be brought back', async () => {
    await storeSealed([point(1), point(2), point(3)], 4);
    const gone = (day: number) => [
      { restorePointId: id(1), trashedUntil: at(19), asOf: at(day) },
      { restorePointId: id(2), trashedUntil: at(22), asOf: at(day) },
    ];
    await storeRemoved(db, gone(18));
    await storeRemoved(db, gone(19));
    expect(await idsOf()).toEqual([id(3)]);
    expect(await loadRestorePoint(db, id(1))).toBeNull();
    expect(await listRestorePoints(db, { removed: true, idPrefix: id(2) })).toMatchObject([
      { removedAt: at(18), trashedUntil: at(22) },
    ]);
    // As long as the repository has it, whatever was said of its end.
    const inTrash = (number: number, day: number) => ({ restorePointId: id(number), trashedUntil: at(day) });
    const both = { trashed: [inTrash(1, 21), inTrash(2, 22)] };
    expect(await storePage(db, main, page([sign(3)], both))).toMatchObject({ missing: [], trashed: 2, changed: 0 });
    expect(await idsOf({ removed: true })).toEqual([id(1), id(2)]);
    expect(await storePage(db, main, page([sign(3)], { trashed: [inTrash(2, 22)] }))).not.toHaveProperty('gone');
    expect(await idsOf({ removed: true })).toEqual([id(2)]);
    // Brought back: the repository has it again.
    expect(await storePage(db, main, page([sign(2), sign(3)]))).toMatchObject({ missing: [id(2)] });
    await storeSealed([point(2)]);
    expect(await idsOf()).toEqual([id(2), id(3)]);
  });

  it('those in the trash of which the catalog knows nothing, or nothing of their removal, are found there', async () => {
    await storeSealed([point(1)], 4);
    const trashed = [1, 2].map((number) => ({ restorePointId: id(number), trashedUntil: at(22) }));
    const stored = await storePage(db, main, page([], { trashed }));
    expect(stored).toEqual({ missing: [id(2)], trashed: 2, changed: 1, removed: 0 });
    await storePoints(db, [{ ...point(2), trashedUntil: at(22) }], at(20));
    expect(await idsOf()).toEqual([]);
    const found = await listRestorePoints(db, { removed: true });
    expect(found.map((each) => [each.restorePointId, each.removedAt, each.trashedUntil])).toEqual([
      [id(2), at(20), at(22)],
      [id(1), at(20), at(22)],
    ]);
  });

  it('whatever order answers come in, the row is what the newest says', async () => {
    const inTrash = { restorePointId: id(1), trashedUntil: at(22) };
    const hour = (number: number): string => `2026-11-20T0${number}:00:00.000Z`;
    type Answer = { is: 'there' | 'trashed'; say: (asOf: string) => Promise<unknown> };
    const answers: Answer[] = [
      { is: 'there', say: (asOf) => storePoints(db, [point(1)], asOf) },
      { is: 'trashed', say: (asOf) => storeRemoved(db, [{ ...inTrash, asOf }]) },
      { is: 'trashed', say: (asOf) => storePage(db, main, page([], { asOf, trashed: [inTrash] })) },
      { is: 'trashed', say: (asOf) => storePoints(db, [{ ...point(1), trashedUntil: at(22) }], asOf) },
      { is: 'there', say: (asOf) => storePoints(db, [point(1)], asOf) },
      { is: 'there', say: (asOf) => storePage(db, main, page([sign(1)], { asOf })) },
      { is: 'trashed', say: (asOf) => storeRemoved(db, [{ ...inTrash, asOf }]) },
      { is: 'there', say: (asOf) => storePoints(db, [point(1)], asOf) },
    ];
    for (const [last, newest] of answers.entries())
      for (const [first, older] of answers.slice(0, last).entries())
        for (const before of ['there', 'trashed'] as const) {
          await db.deleteFrom('restore_points').execute();
          await storeSealed([point(1)], 4);
          if (before === 'trashed') await storeRemoved(db, [{ ...inTrash, asOf: at(5) }]);
          // A page that finds a row in the wrong place has it imported.
          if (newest.is === 'there' && before === 'trashed') await storePoints(db, [point(1)], hour(last));
          await newest.say(hour(last));
          await older.say(hour(first));
          const found = [await idsOf(), await idsOf({ removed: true })];
          expect(found, `${last} ${first}`).toEqual(newest.is === 'there' ? [[id(1)], []] : [[], [id(1)]]);
        }
  });

  it('a clock that was set back does not silence the repository', async () => {
    await storeSealed([point(1)], 25);
    await storeRemoved(db, [{ restorePointId: id(1), trashedUntil: null, asOf: at(20) }]);
    expect(await idsOf({ removed: true })).toEqual([id(1)]);
  });

  it('recorded again they keep what was said of them; a check marks and heals', async () => {
    const mark = {
      restorePointId: id(1),
      state: 'suspect',
      why: { code: 'AUDIT', message: 'a block' },
      since: at(2),
    } as const;
    await storeSealed([{ ...point(1), mark, flags: { keep: false, hold: 'x'.repeat(2000), lockedUntil: null } }]);
    await recordRestorePoint(db, point(1));
    const [found] = await listRestorePoints(db);
    expect(found).toMatchObject({ suspect: true, markReason: 'a block', hold: 'x'.repeat(1024) });
    await storeMarks(db, { damaged: [id(1)], healed: [], why: 'torn' });
    expect(await listRestorePoints(db)).toMatchObject([{ suspect: true, damaged: true, markReason: 'torn' }]);
    await storeMarks(db, { damaged: [], healed: [id(1)], why: '' });
    expect(await listRestorePoints(db)).toMatchObject([{ suspect: true, damaged: false, markReason: null }]);
  });

  it('take signs that they are suspect; of others there is nothing to say', async () => {
    await storeSealed([point(1), point(2)]);
    const why = 'a block had changed';
    await storeSigns(db, [
      { ...sign(1), state: 'suspect', why },
      { ...sign(9), state: 'suspect', why },
    ]);
    const listed = await listRestorePoints(db);
    expect(
      listed
        .map(({ restorePointId, suspect, markReason }) => [restorePointId, suspect, markReason])
        .toSorted(([a], [b]) => (String(a) < String(b) ? -1 : 1)),
    ).toEqual([
      [id(1), true, why],
      [id(2), false, null],
    ]);
  });

  it('tell what a job’s last ones have stored', async () => {
    await storeSealed([point(1), point(2, { baseRestorePointId: id(1) }), point(3, { jobId: 'x' as never })]);
    const of = { jobId: 'nightly', repositoryId: 'main', limit: 9 };
    expect(await listStoredBytes(db, of)).toEqual([
      { vmId: 'a', storedBytes: 25, isIncrement: true },
      { vmId: 'a', storedBytes: 25, isIncrement: false },
    ]);
  });
});

describe('sessions known from manifests alone', () => {
  it('are there once, span their restore points, and warn when one of them does', async () => {
    const warnings = [{ level: 'warning' as const, code: 'W', message: 'crash-consistent only' }];
    const manifests = [
      point(3, { sessionId: 's' as never }).manifest,
      point(2, { sessionId: 's' as never, vm: { vmId: 'b', hostId: 'h1', name: 'db' }, warnings }).manifest,
    ];
    expect(await importSessions(db, manifests)).toBe(1);
    expect(await importSessions(db, manifests)).toBe(0);
    const session = await loadSession(db, 's');
    expect(session).toMatchObject({
      kind: 'backup',
      jobId: 'nightly',
      workflowId: 'backup-session/nightly/s',
      startedBy: 'import',
      state: 'Stopped',
      result: 'Warning',
      startedAt: at(2),
      endedAt: at(3),
    });
    expect(
      session!.vms
        .map((vm) => [vm.name, vm.result, vm.restorePointId, vm.disks.length])
        .toSorted(([a], [b]) => (a! < b! ? -1 : 1)),
    ).toEqual([
      ['db', 'Warning', id(2), 1],
      ['web', 'Success', id(3), 1],
    ]);
    expect(session!.vms[0]!.disks[0]).toMatchObject({ mode: 'full', sentBytes: 30, conservation });
  });

  it('that the catalog has stay as they are', async () => {
    const times = { nominalTime: at(1), startedAt: at(1) };
    const kept = { sessionId: 's3', kind: 'backup', jobId: 'nightly', workflowId: 'w', startedBy: 'schedule' } as const;
    await beginSession(db, { ...kept, ...times });
    await updateSession(db, 's3', { state: 'Stopped', result: 'Failed' });
    expect(await importSessions(db, [point(3).manifest])).toBe(0);
    expect(await loadSession(db, 's3')).toMatchObject({ workflowId: 'w', result: 'Failed', startedAt: at(1) });
  });
});

describe('whose restore points may go', () => {
  const retention = {
    count: 7,
    days: null,
    weekly: null,
    monthly: null,
    yearly: null,
    minimum: 3,
    deletedVmDays: 30,
    timeZone: 'UTC',
  };
  const apply = (jobs: (typeof job)[], day: number) => applySite(db, { ...site, jobs }, new Date(at(day)));
  const goneSince = async (day: number): Promise<(string | null)[]> =>
    (await loadLineagePolicies(db, 'main', new Date(at(day)))).map((each) => each.vmGoneSince);

  it('each lineage has the retention of its job, and since when the job lacks the VM', async () => {
    await storeSealed([
      point(1),
      point(2),
      point(3, { vm: { vmId: 'b', hostId: 'h1', name: 'db' }, lineage: 'l2' as never }),
    ]);
    await apply([{ ...job, retention }], 4);
    expect(await loadLineagePolicies(db, 'main', new Date(at(5)))).toEqual([
      { lineage: 'l1', jobId: 'nightly', vmId: 'a', vmName: 'web', count: 2, policy: retention, vmGoneSince: null },
      { lineage: 'l2', jobId: 'nightly', vmId: 'b', vmName: 'db', count: 1, policy: retention, vmGoneSince: null },
    ]);
    const without = { ...job, retention, vms: job.vms.filter((vm) => vm.vmId !== vmId('b')) };
    await apply([without], 6);
    await apply([without], 7);
    expect(await goneSince(8)).toEqual([null, at(6)]);
    await apply([{ ...job, retention }], 9);
    expect(await goneSince(9)).toEqual([null, null]);
    await apply([without], 10);
    expect(await goneSince(11)).toEqual([null, at(10)]);
  });

  it('of a VM nobody knows the end of, it is the day it was missed first; of a job that is gone, nothing goes', async () => {
    await storeSealed([point(1, { vm: { vmId: 'old', hostId: 'h1', name: 'old' } })]);
    expect([await goneSince(12), await goneSince(15)]).toEqual([[at(12)], [at(12)]]);
    await apply([], 16);
    expect(await loadLineagePolicies(db, 'main', new Date(at(17)))).toMatchObject([
      { policy: null, vmGoneSince: null },
    ]);
  });
});

describe('figures of repositories', () => {
  const statistics: RepositoryStatistics = {
    restorePoints: 3,
    vms: 1,
    logicalBytes: 400,
    deduplicatedBytes: 200,
    storedBytes: 100,
    deadBytes: 10,
    trashBytes: 5,
    freeBytes: 70,
    byVm: [],
  };

  it('are the newest, and one row a day', async () => {
    await recordSpace(db, 'main', { freeBytes: 90, totalBytes: 1000, at: at(1) });
    await recordSpace(db, 'main', { freeBytes: 80, totalBytes: 1000, at: '2026-11-01T23:00:00.000Z' });
    await recordSpace(db, 'main', { freeBytes: 70, totalBytes: 1000, at: at(2) });
    // An answer that was on its way for hours says nothing any more.
    await recordSpace(db, 'main', { freeBytes: 1, totalBytes: 1000, at: '2026-11-01T02:00:00.000Z' });
    await recordStatistics(db, 'main', statistics, at(2));
    expect(await loadRepositoryFigures(db, 'main')).toEqual({
      space: { freeBytes: 70, totalBytes: 1000, at: at(2) },
      statistics,
      statisticsAt: at(2),
    });
    const days = await listRepositoryDays(db, 'main', 9);
    expect(days.map(({ day, freeBytes, storedBytes }) => [day, freeBytes, storedBytes])).toEqual([
      ['2026-11-01', 80, null],
      ['2026-11-02', 70, 100],
    ]);
    expect(await listRepositoryDays(db, 'main', 1)).toEqual(days.slice(1));
    await recordSpace(db, 'nowhere', { freeBytes: 1, totalBytes: 2, at: at(3) });
    expect(await listRepositoryDays(db, 'nowhere', 9)).toEqual([]);
    expect(await loadRepositoryFigures(db, 'nowhere')).toMatchObject({ space: null, statistics: null });
  });

  describe('when the clock of the repository’s host was wrong', () => {
    const free = (freeBytes: number, when: string) =>
      recordSpace(db, 'main', { freeBytes, totalBytes: 1000, at: when });
    const freeOnDays = async (limit: number) =>
      (await listRepositoryDays(db, 'main', limit)).map(({ day, freeBytes }) => [day, freeBytes]);
    const scheduledFree = async () =>
      (await loadResourceStates(db)).find(({ kind }) => kind === 'repository')?.freeBytes;

    it('a year ahead, for minutes: what is said when it is right again counts at once', async () => {
      for (const day of [1, 2, 3]) await free(100 - day * 10, at(day));
      await free(61, '2027-11-03T01:00:00.000Z');
      await free(60, at(4));
      await recordStatistics(db, 'main', statistics, at(4));
      expect((await loadRepositoryFigures(db, 'main')).space).toEqual({ freeBytes: 60, totalBytes: 1000, at: at(4) });
      expect(await scheduledFree()).toBe(60);
      const real = [1, 2, 3, 4].map((day) => [`2026-11-0${day}`, 100 - day * 10]);
      expect(await freeOnDays(9)).toEqual(real);
      expect(await freeOnDays(2)).toEqual(real.slice(2));
      const days = await listRepositoryDays(db, 'main', 9);
      expect(days.at(-1)).toMatchObject({ day: '2026-11-04', storedBytes: statistics.storedBytes });
      expect(daysUntilFull(days)).toBe(6);
      // When that day comes, its figures are those of that day.
      await free(50, '2027-11-03T01:00:00.000Z');
      expect(await freeOnDays(1)).toEqual([['2027-11-03', 50]]);
    });

    it('a month behind, for an hour: no day is lost', async () => {
      for (const day of [1, 2, 3]) await free(100 - day * 10, at(day));
      await free(69, '2026-10-03T01:00:00.000Z');
      expect((await loadRepositoryFigures(db, 'main')).space?.freeBytes).toBe(69);
      expect(await freeOnDays(9)).toEqual([['2026-10-03', 69]]);
      await free(60, at(4));
      expect(await freeOnDays(4)).toEqual([1, 2, 3, 4].map((day) => [`2026-11-0${day}`, 100 - day * 10]));
    });
  });

  it('are in the scheduler’s picture, with what granted requests are expected to store', async () => {
    await recordSpace(db, 'main', { freeBytes: 70, totalBytes: 1000, at: '2027-01-01T00:00:00.000Z' });
    const wants = { vmId: null, hostId: null, proxies: null, excludedProxies: [], repositoryId: main, pairs: 1 };
    for (const [workflowId, expectedBytes] of [
      ['w1', 30],
      ['w2', 12],
      ['w3', 99],
    ] as const) {
      const request = { workflowId, requestNumber: 0, runKey: runKey('r'), order: 1, manual: false, arrivedAt: 0 };
      await enqueueRequest(db, { ...request, wants: { ...wants, expectedBytes } });
    }
    await db.updateTable('resource_requests').set({ state: 'granted' }).where('workflow_id', '!=', 'w3').execute();
    const [found] = (await loadResourceStates(db)).filter(({ kind }) => kind === 'repository');
    expect(found).toMatchObject({ freeBytes: 70, reservedBytes: 42 });
  });
});

it('what steps came to is told in order; said again it is one', async () => {
  const counts = { restorePoints: 1, trashed: 0, added: 0, changed: 0, removed: 0, sessionsAdded: 0 };
  const retention = { step: 'retention' as const, dryRun: false, lineages: [] };
  const said = { sessionId: 'm1', part: 0 };
  await recordOutcome(db, { ...said, outcome: { step: 'import', counts }, at: new Date(at(1)) });
  await recordOutcome(db, { ...said, part: 1, outcome: { ...retention, dryRun: true }, at: new Date(at(3)) });
  await recordOutcome(db, { ...said, outcome: retention, at: new Date(at(2)) });
  await recordOutcome(db, { ...said, outcome: retention, at: new Date(at(2)) });
  expect(await listOutcomes(db, 'm1')).toEqual([{ step: 'import', counts }, retention, { ...retention, dryRun: true }]);
  expect(await listOutcomes(db, 'm2')).toEqual([]);
});

it('a run key leads back to its workflow and session', async () => {
  const [run, other] = [runKey('aaaaaaaaaaaa'), runKey('bbbbbbbbbbbb')];
  const times = { nominalTime: at(1), startedAt: at(1) };
  const session = { sessionId: 's1', kind: 'backup', jobId: 'nightly', workflowId: 'w', startedBy: 'manual' } as const;
  await beginSession(db, { ...session, ...times });
  const owner = { run, workflowId: 'w/vm/a/try-1', sessionId: 's1', vmId: 'a' };
  await recordRunOwner(db, owner, new Date(at(1)));
  await recordRunOwner(db, owner, new Date(at(1)));
  expect(await loadRunOwners(db, [run, other])).toEqual([{ ...owner, hasEnded: false }]);
  await updateSession(db, 's1', { state: 'Stopped', result: 'Failed' });
  expect(await loadRunOwners(db, [run])).toEqual([{ ...owner, hasEnded: true }]);
  expect(await loadRunOwners(db, [])).toEqual([]);
});

it('one maintenance of a repository at a time; a job’s session is in nobody’s way', async () => {
  const times = { nominalTime: at(1), startedAt: at(1) };
  const of = (sessionId: string, repository: string) => ({
    sessionId,
    kind: 'maintenance' as const,
    jobId: null,
    repositoryId: repository,
    workflowId: `w-${sessionId}`,
    startedBy: 'manual' as const,
    ...times,
  });
  expect(await beginSession(db, of('m1', 'main'))).toEqual([]);
  expect(await beginSession(db, of('m2', 'main'))).toMatchObject([{ sessionId: 'm1' }]);
  expect(await beginSession(db, of('m3', 'other'))).toEqual([]);
  const backup = { kind: 'backup', jobId: 'nightly', workflowId: 'w', startedBy: 'manual' } as const;
  expect(await beginSession(db, { sessionId: 's1', ...backup, ...times })).toEqual([]);
  expect(await listSessions(db, { repositoryId: 'main' })).toMatchObject([{ sessionId: 'm1', kind: 'maintenance' }]);
});

import { describe, expect, it } from 'vitest';
import { TidemarkError } from '../../schema/domain/errors.ts';
import {
  lineageId,
  type LineageId,
  machineId,
  restorePointId,
  runKey,
  type RestorePointId,
} from '../../schema/domain/ids.ts';
import { noFlags, type SealedRestorePoint } from '../../schema/domain/maintenance-sessions.ts';
import type { CheckReport, MaintenanceProgress } from '../../schema/domain/maintenance.ts';
import type { Grant } from '../../engines/security/grants.ts';
import type { LongWork } from '../../engines/repository/maintenance/long-work.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { runActivity } from '../../tests/fixtures/activity.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { ServerClock } from './server-clock.ts';
import { changeRestorePoint } from './change-restore-point.ts';
import { createRepositoryActivities } from './repository-activities.ts';
import { createRepositoryWork } from './repository-work.ts';
import { namedRuns, packRestorePoints, pageOf, suspectsOf, unpackRestorePoints } from './restore-point-pages.ts';

const id = (number: number): RestorePointId => restorePointId(String(number).padStart(32, '0'));
function point(number: number, change: Partial<SealedRestorePoint> = {}, padding = ''): SealedRestorePoint {
  const referencePoint = { run: runKey(`ref${number}`) };
  const manifest = { run: runKey(`run${number}`), suspect: number === 7, referencePoint, padding };
  return {
    restorePointId: id(number),
    manifestDigest: `d${number}`,
    manifest: manifest as unknown as SealedRestorePoint['manifest'],
    mark: null,
    flags: noFlags,
    ...change,
  };
}
const asOf = '2026-11-25T00:00:00.000Z';
const clock = { now: () => Date.parse(asOf) };
const listed = (points: SealedRestorePoint[], open: string[] = [], trashed: SealedRestorePoint[] = []) => ({
  survey: async () => {
    const signs = trashed.map(({ restorePointId }) => ({ restorePointId, trashedUntil: 'u' }));
    return await Promise.resolve({ sealed: points, trashed: signs, asOf });
  },
  describeTrashed: async (ids: readonly RestorePointId[]) => {
    const found = trashed.filter(({ restorePointId }) => ids.includes(restorePointId));
    return await Promise.resolve(found.map((each) => ({ ...each, trashedUntil: 'u' })));
  },
  listSealed: () => points,
  listOpen: () => open.map((run) => ({ restorePointId: id(0), run: runKey(run), disks: [], lastWriteAt: '' })),
});

describe('restore points in portions', () => {
  it('are told by id, page after page, with what differs from most', async () => {
    const why = { code: 'TORN', message: 'a record is torn' };
    const flags = { keep: true, hold: null, lockedUntil: null };
    const marked = { restorePointId: id(2), state: 'damaged', why, since: '' } as const;
    const points = [
      point(7),
      point(2, { mark: marked, flags }),
      ...Array.from({ length: 1000 }, (_, n) => point(n + 10)),
    ];
    const first = await pageOf(listed(points), null);
    expect(first).toMatchObject({ after: null, upTo: id(1007), asOf });
    expect(first.signs).toHaveLength(1000);
    expect(first.signs.slice(0, 3)).toEqual([
      { restorePointId: id(2), manifestDigest: 'd2', state: 'damaged', why: 'a record is torn', flags },
      { restorePointId: id(7), manifestDigest: 'd7', state: 'suspect', why: null, flags: null },
      { restorePointId: id(10), manifestDigest: 'd10', state: 'good', why: null, flags: null },
    ]);
    const last = await pageOf(listed(points), first.upTo);
    expect(last).toMatchObject({ after: first.upTo, upTo: null });
    expect(last.signs.map((sign) => sign.restorePointId)).toEqual([id(1008), id(1009)]);
    expect(await pageOf(listed([]), null)).toMatchObject({ signs: [], upTo: null });
  });

  it('are listed when an audit found them suspect, by lineage', async () => {
    const lineage = lineageId('0123456789abcdef');
    const why = { code: 'AUDIT_MISMATCH', message: 'a block had changed' };
    const marked = (number: number, of: LineageId, state: 'suspect' | 'damaged') => {
      const { manifest, ...rest } = point(number, { mark: { restorePointId: id(number), state, why, since: '' } });
      return { ...rest, manifest: { ...manifest, lineage: of } };
    };
    const other = lineageId('ffffffffffffffff');
    const points = [marked(1, lineage, 'suspect'), marked(2, other, 'suspect'), marked(3, lineage, 'damaged')];
    expect(await suspectsOf(listed(points), lineage)).toMatchObject([
      { restorePointId: id(1), state: 'suspect', why: why.message },
    ]);
  });

  it('are packed as many as fit, at least one; those that are gone are counted', async () => {
    const large = 'x'.repeat(700_000);
    const points = [point(1, {}, large), point(2, {}, large), point(3)];
    const packed = await packRestorePoints(listed(points), [id(9), id(1), id(2), id(3)]);
    expect(packed.count).toBe(2);
    expect(packed.packed.length).toBeLessThan(5000);
    expect(unpackRestorePoints(packed)).toEqual([points[0]]);
    const rest = await packRestorePoints(listed(points), [id(2), id(3)]);
    expect([rest.count, unpackRestorePoints(rest)]).toEqual([2, [points[1], points[2]]]);
    expect(await packRestorePoints(listed([]), [id(1)])).toMatchObject({ count: 1 });
  });

  it('are those in the trash, too: in the span of their page, and packed with their end', async () => {
    const sealed = Array.from({ length: 999 }, (_, n) => point(n * 2));
    const repository = listed(sealed, [], [point(5000), point(3), point(1)]);
    const first = await pageOf(repository, null);
    expect(first.trashed.map(({ restorePointId }) => restorePointId)).toEqual([id(1), id(3)]);
    expect([first.signs.length, first.upTo]).toEqual([998, id(1994)]);
    const last = await pageOf(repository, first.upTo);
    expect(last).toMatchObject({ upTo: null, trashed: [{ restorePointId: id(5000), trashedUntil: 'u' }] });
    expect(last.signs).toHaveLength(1);
    const packed = await packRestorePoints(repository, [id(3), id(4), id(5)]);
    expect([packed.count, packed.asOf]).toEqual([3, asOf]);
    expect(unpackRestorePoints(packed)).toEqual([{ ...point(3), trashedUntil: 'u' }, point(4)]);
  });

  it('name the runs that must stay', () => {
    const runs = ['run1', 'ref1', 'open1', 'nobody'].map(runKey);
    expect(namedRuns(listed([point(1)], ['open1']), runs)).toEqual(['run1', 'ref1', 'open1']);
  });
});

describe('what a person does to one', () => {
  const repository = () => {
    const points = [point(1), point(2)];
    const said: unknown[] = [];
    const tell = async (...of: unknown[]): Promise<never> => {
      said.push(of);
      return (await Promise.resolve({ trashedUntil: 't', asOf })) as never;
    };
    return {
      said,
      listSealed: () => points,
      removeRestorePoint: (of: RestorePointId, options: unknown) => tell('remove', of, options),
      restoreFromTrash: (of: RestorePointId) => tell('undelete', of),
      setFlags: async (of: RestorePointId, { keep, hold }: { keep?: boolean; hold?: string | null }) => {
        const at = points.findIndex(({ restorePointId }) => restorePointId === of);
        const { flags } = points[at]!;
        const wanted = { ...flags, keep: keep ?? flags.keep, hold: hold === undefined ? flags.hold : hold };
        points[at] = { ...points[at]!, flags: wanted };
        return await Promise.resolve(wanted);
      },
    };
  };

  it('is kept and held each by itself, and comes back as it is', async () => {
    const held = repository();
    const flag = (change: object) =>
      changeRestorePoint(held, { restorePointId: id(1), change: { kind: 'flags', ...change } }, clock);
    expect(await flag({ keep: true })).toMatchObject({ removed: false, restorePointId: id(1), flags: { keep: true } });
    expect(await flag({ hold: 'evidence' })).toMatchObject({ flags: { keep: true, hold: 'evidence' } });
    expect(await flag({ hold: null, keep: false })).toMatchObject({ flags: noFlags });
  });

  it('is removed and brought back; of none that is not there', async () => {
    const held = repository();
    const remove = { kind: 'remove', last: true } as const;
    expect(await changeRestorePoint(held, { restorePointId: id(1), change: remove }, clock)).toEqual({
      removed: true,
      restorePointId: id(1),
      trashedUntil: 't',
      asOf,
    });
    const undelete = { kind: 'undelete' } as const;
    expect(await changeRestorePoint(held, { restorePointId: id(2), change: undelete }, clock)).toMatchObject({
      removed: false,
      asOf,
    });
    expect(held.said).toEqual([
      ['remove', id(1), { last: true }],
      ['undelete', id(2)],
    ]);
    await expect(changeRestorePoint(held, { restorePointId: id(3), change: undelete }, clock)).rejects.toMatchObject({
      code: 'RESTORE_POINT_NOT_FOUND',
    });
  });
});

it('lets a machine read a restore point for one try of a restore, and not for ever', async () => {
  const seams = testSeams();
  const signed: Grant[] = [];
  const verbs = {
    describeSealed: () => ({ manifest: { suspect: false, disks: [] } }),
    markOf: () => null,
  } as unknown as Repository;
  const opened = {
    repository: verbs,
    endpoint: { unix: '/t' },
    signGrant: (of: Grant) => (signed.push(of), 'signed'),
    space: () => Promise.resolve(null),
  };
  const activities = createRepositoryActivities({
    open: () => Promise.resolve(opened),
    clock: seams.clock,
    serverClock: new ServerClock(seams.clock),
  });
  const of = { restorePointId: id(1), run: runKey('restore00000'), machineId: machineId('m2') };
  const before = seams.clock.now() / 1000;
  const { grant, grantEnd } = await runActivity((asked: typeof of) => activities.openRestore(asked), of).result;
  expect([grant, signed[0]!.fence]).toEqual(['signed', grantEnd]);
  // A try may take 48 h.
  expect(grantEnd! - before).toBeGreaterThan(48 * 3600);
  expect(grantEnd! - before).toBeLessThan(7 * 24 * 3600);
});

it('a seal tells until when its lock holds; said again of one that is in the trash by now, nothing', async () => {
  const { clock: now } = testSeams();
  let flagsOf: Repository['flagsOf'] = () => ({ ...noFlags, lockedUntil: asOf });
  const sealed = { restorePointId: id(1), manifestDigest: 'd', manifest: {} };
  const repository = {
    seal: async () => sealed,
    flagsOf: (of: RestorePointId) => flagsOf(of),
  } as unknown as Repository;
  const opened = { repository, endpoint: { unix: '/t' }, signGrant: () => '', space: () => Promise.resolve(null) };
  const activities = createRepositoryActivities({
    open: () => Promise.resolve(opened),
    clock: now,
    serverClock: new ServerClock(now),
  });
  const request = { restorePointId: id(1) } as Parameters<typeof activities.sealRestorePoint>[0];
  const seal = () => runActivity((asked: typeof request) => activities.sealRestorePoint(asked), request).result;
  expect(await seal()).toEqual({ ...sealed, space: null, lockedUntil: asOf });
  flagsOf = () => {
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', 'gone');
  };
  expect(await seal()).toEqual({ ...sealed, space: null, lockedUntil: null });
});

describe('long work', () => {
  const endpoint = { unix: '/t' };
  const space = () => Promise.resolve({ freeBytes: 1, totalBytes: 2, at: 't' });
  const activities = (verbs: Partial<Repository>) =>
    createRepositoryWork({
      open: () => Promise.resolve({ repository: verbs as Repository, endpoint, signGrant: () => '', space }),
      serverClock: new ServerClock(testSeams().clock),
    });
  const untilStopped = (work: LongWork): Promise<never> =>
    new Promise((_resolve, reject) => {
      work.onProgress({ step: 'marking', doneBytes: 5, totalBytes: 10 });
      const stop = (): void => reject(work.signal.reason as Error);
      work.signal.addEventListener('abort', stop);
      if (work.signal.aborted) stop();
    });

  it('beats with its progress, and ends when it is cancelled', async () => {
    const { collectGarbage } = activities({ collect: untilStopped });
    const running = runActivity<undefined, unknown, MaintenanceProgress>(collectGarbage, undefined);
    running.cancel();
    await expect(running.result).rejects.toMatchObject({ name: 'CancelledFailure' });
    expect(running.beats[0]).toEqual({ step: 'collection', doneBytes: 0, totalBytes: 0 });
    expect(running.beats.at(-1)).toEqual({ step: 'marking', doneBytes: 5, totalBytes: 10 });
  });

  it('is tried again elsewhere when its worker ends', async () => {
    const running = runActivity(activities({ collect: untilStopped }).collectGarbage, undefined);
    running.shutDown();
    await expect(running.result).rejects.toMatchObject({ type: 'HOST_DRAINING', nonRetryable: false });
  });

  it('tells of damage no more than a history takes, and how much there was', async () => {
    const why = { code: 'TORN', message: 'torn' };
    const damage = {
      kind: 'record',
      name: 'r',
      pack: 'p',
      offset: 1,
      why,
      restorePoints: Array.from({ length: 50 }, (_, n) => id(n)),
    } as const;
    const ids = Array.from({ length: 3000 }, (_, n) => id(n));
    const whole = { depth: 'full', whole: true, restorePoints: 1, packs: 1, checkedBytes: 1, openPacks: 0 } as const;
    const report: CheckReport = {
      ...whole,
      damages: Array.from({ length: 300 }, () => damage),
      marked: ids,
      healed: ids,
    };
    const request = { depth: 'full', vmId: null, restorePointId: null, maxBytes: null, maxMs: null } as const;
    const answer = await runActivity(activities({ check: () => Promise.resolve(report) }).checkRepository, request)
      .result;
    expect(answer.damageCount).toBe(300);
    expect([answer.report.damages.length, answer.report.damages[0]!.restorePoints.length]).toEqual([100, 20]);
    expect(Buffer.byteLength(JSON.stringify(answer))).toBeLessThan(256 * 1024);
  });

  it('measures with how full the disk is; errors keep their codes', async () => {
    const byVm = Array.from({ length: 600 }, (_, n) => ({ vmId: `v${n}`, name: '', restorePoints: 1, storedBytes: n }));
    const statistics = () => Promise.resolve({ restorePoints: 1, byVm } as never);
    const answer = await runActivity(activities({ statistics }).measureRepository, undefined).result;
    expect(answer.space).toEqual({ freeBytes: 1, totalBytes: 2, at: 't' });
    expect([answer.statistics.byVm.length, answer.statistics.byVm[0]!.vmId]).toEqual([500, 'v599']);
    const repair = () => Promise.reject(new TidemarkError('REPOSITORY_FULL', 'no room'));
    await expect(runActivity(activities({ repair }).repairRepository, { dryRun: false }).result).rejects.toMatchObject({
      type: 'REPOSITORY_FULL',
    });
  });
});

it('the server’s clock is known from what it sends, and goes on by itself', async () => {
  let monotonicMs = 0;
  const clock = new ServerClock({ monotonic: () => monotonicMs });
  expect(await clock.now()).toBeNull();
  clock.observe({ currentAttemptScheduledTimestampMs: 5000 });
  monotonicMs = 700;
  expect(await clock.now()).toBe(5700);
  // Waited long before a worker took it: what is known already is later.
  clock.observe({ currentAttemptScheduledTimestampMs: 5200 });
  expect(await clock.now()).toBe(5700);
  clock.observe({ currentAttemptScheduledTimestampMs: 9000 });
  expect(await clock.now()).toBe(9000);
  // It was set years ahead, and put right again.
  for (const now of [5 * 365 * 86_400_000, 9000]) {
    clock.observe({ currentAttemptScheduledTimestampMs: now });
    expect(await clock.now()).toBe(now);
  }
});

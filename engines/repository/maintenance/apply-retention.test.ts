import { describe, expect, it } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { jobId, lineageId, restorePointId, vmId, type RestorePointId } from '../../../schema/domain/ids.ts';
import type { LineagePolicy, SealedRestorePoint } from '../../../schema/domain/maintenance-sessions.ts';
import type { TimeReading } from './repository-time.ts';
import { applyRetention } from './apply-retention.ts';

const id = (number: number): RestorePointId => restorePointId(String(number).padStart(32, '0'));
const policy = {
  count: 1,
  days: null,
  weekly: null,
  monthly: null,
  yearly: null,
  minimum: 1,
  deletedVmDays: 5,
  timeZone: 'UTC',
};
const of: LineagePolicy = {
  lineage: lineageId('l1'),
  jobId: jobId('nightly'),
  vmId: vmId('v1'),
  vmName: 'web',
  policy,
  vmGoneSince: null,
};
/** Taken on that day of November. */
function point(day: number, change: { lineage?: string; keep?: boolean; state?: 'suspect' } = {}): SealedRestorePoint {
  const at = `2026-11-${String(day).padStart(2, '0')}T01:00:00.000Z`;
  const manifest = { takenAt: at, nominalTime: at, sealedAt: at, lineage: change.lineage ?? 'l1', suspect: false };
  const why = { code: 'AUDIT', message: 'a block had changed' };
  const mark = change.state ? { restorePointId: id(day), state: change.state, why, since: at } : null;
  return {
    restorePointId: id(day),
    manifestDigest: '',
    manifest: manifest as unknown as SealedRestorePoint['manifest'],
    mark,
    flags: { keep: change.keep ?? false, hold: null, lockedUntil: null },
  };
}

const november25: TimeReading = { nowMs: Date.parse('2026-11-25T00:00:00.000Z'), doubt: null };
const asOf = '2026-11-25T00:00:00.000Z';
function repository(
  points: SealedRestorePoint[],
  refuses: Record<string, TidemarkError> = {},
  time: TimeReading = november25,
  trash: SealedRestorePoint[] = [],
) {
  const signOf = ({ restorePointId }: SealedRestorePoint) => ({ restorePointId, trashedUntil: 'u' });
  const removed: { id: RestorePointId; last: boolean | undefined }[] = [];
  return {
    removed,
    survey: () => Promise.resolve({ sealed: points, trashed: trash.map(signOf), asOf }),
    describeTrashed: (ids: readonly RestorePointId[]) =>
      Promise.resolve(
        trash
          .filter(({ restorePointId }) => ids.includes(restorePointId))
          .map((each) => ({ ...each, ...signOf(each) })),
      ),
    readTime: () => Promise.resolve(time),
    removeRestorePoint: async (restorePoint: RestorePointId, { last }: { last?: boolean } = {}) => {
      await Promise.resolve();
      const refusal = refuses[restorePoint];
      if (refusal) throw refusal;
      removed.push({ id: restorePoint, last });
      return { restorePointId: restorePoint, removed: true, trashedUntil: '2026-11-26T00:00:00.000Z', asOf };
    },
  };
}

describe('applyRetention', () => {
  it('removes what no rule keeps, oldest first, of the lineages asked about only', async () => {
    const held = repository([point(3), point(1), point(2), point(1, { lineage: 'l2' })]);
    const [answer] = await applyRetention(held, { lineages: [of], dryRun: false, again: false });
    expect(held.removed).toEqual([
      { id: id(1), last: false },
      { id: id(2), last: false },
    ]);
    expect(answer).toMatchObject({ lineage: 'l1', jobId: 'nightly', vmName: 'web', stays: 1 });
    expect(answer!.decisions).toMatchObject([
      { restorePointId: id(2), outcome: 'removed', trashedUntil: '2026-11-26T00:00:00.000Z', refusal: null },
      { restorePointId: id(1), outcome: 'removed', takenAt: '2026-11-01T01:00:00.000Z' },
    ]);
    expect(answer).not.toHaveProperty('policy');
  });

  it('of a dry run removes nothing, and says of each why', async () => {
    const held = repository([point(1), point(2, { keep: true }), point(3)]);
    const [answer] = await applyRetention(held, { lineages: [of], dryRun: true, again: false });
    expect(held.removed).toEqual([]);
    expect(answer!.decisions.map(({ outcome, reasons }) => [outcome, ...reasons])).toEqual([
      ['stays', 'the newest good one', 'among the newest 1'],
      ['stays', 'marked to be kept'],
      ['would-go', 'not among the newest 1 and not needed for the minimum of 1 good'],
    ]);
  });

  it('knows the marks: a suspect one does not count', async () => {
    const [answer] = await applyRetention(repository([point(1), point(2, { state: 'suspect' })]), {
      lineages: [of],
      dryRun: true,
      again: false,
    });
    expect(answer!.decisions.map(({ outcome }) => outcome)).toEqual(['stays', 'stays']);
  });

  it('says what the repository refuses, and goes on with the others; what is gone already is gone', async () => {
    const held = repository([point(1), point(2), point(3), point(4)], {
      [id(1)]: new TidemarkError('RESTORE_POINT_HELD', 'locked until 2027'),
      [id(2)]: new TidemarkError('RESTORE_POINT_NOT_FOUND', 'gone'),
    });
    const [answer] = await applyRetention(held, { lineages: [of], dryRun: false, again: false });
    expect(answer!.decisions.map(({ outcome, refusal }) => [outcome, refusal?.message])).toEqual([
      ['removed', undefined],
      ['removed', undefined],
      ['refused', 'locked until 2027'],
    ]);
    const broken = repository([point(1), point(2)], { [id(1)]: new TidemarkError('STORAGE_ERROR', 'no disk') });
    await expect(applyRetention(broken, { lineages: [of], dryRun: false, again: false })).rejects.toThrow('no disk');
  });

  it('tried again tells what lies in the trash of its lineages: the first answer may have been lost', async () => {
    const trash = [point(1), point(2, { lineage: 'l2' })];
    const held = repository([point(3), point(4)], {}, november25, trash);
    const first = await applyRetention(held, { lineages: [of], dryRun: false, again: false });
    expect(first[0]).not.toHaveProperty('trashed');
    expect(first[0]!.decisions).toMatchObject([{ restorePointId: id(3), outcome: 'removed', asOf }]);
    const [again] = await applyRetention(held, { lineages: [of], dryRun: false, again: true });
    expect(again!.trashed).toEqual([{ restorePointId: id(1), trashedUntil: 'u', asOf }]);
  });

  it('of a VM that is gone for long may take the last one, too', async () => {
    const held = repository([point(1), point(2)]);
    const gone = { ...of, vmGoneSince: '2026-11-03T00:00:00.000Z' };
    await applyRetention(held, { lineages: [gone], dryRun: false, again: false });
    expect(held.removed).toEqual([
      { id: id(1), last: true },
      { id: id(2), last: true },
    ]);
  });

  it('removes nothing while it is not known what time it is', async () => {
    const doubt = { code: 'CLOCK_IN_DOUBT', message: 'there is no second clock' };
    for (const time of [
      { nowMs: november25.nowMs, doubt },
      { nowMs: null, doubt },
    ]) {
      const held = repository([point(1), point(2)], {}, time);
      const [answer] = await applyRetention(held, { lineages: [of], dryRun: true, again: false });
      expect(
        answer!.decisions.map(({ restorePointId, outcome, reasons }) => [restorePointId, outcome, ...reasons]),
      ).toEqual([
        [id(2), 'stays', 'nothing is removed: there is no second clock'],
        [id(1), 'stays', 'nothing is removed: there is no second clock'],
      ]);
    }
  });

  it('of a lineage without a policy, or without restore points, removes nothing', async () => {
    const held = repository([point(1), point(2)]);
    const lineages = [
      { ...of, policy: null },
      { ...of, lineage: lineageId('l9') },
    ];
    const answers = await applyRetention(held, { lineages, dryRun: false, again: false });
    expect(answers.map(({ stays, decisions }) => [stays, decisions.length])).toEqual([
      [2, 0],
      [0, 0],
    ]);
    expect(held.removed).toEqual([]);
  });
});

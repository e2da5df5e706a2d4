import { describe, expect, it } from 'vitest';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { jobId, lineageId, restorePointId, vmId, type RestorePointId } from '../../../schema/domain/ids.ts';
import type {
  LineagePolicy,
  LineageRetention,
  SealedRestorePoint,
} from '../../../schema/domain/maintenance-sessions.ts';
import type { TimeReading } from './repository-time.ts';
import { leftToRetain } from '../../../workflows/retention-pages.ts';
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
    placeTrashed: (ids: readonly RestorePointId[]) =>
      Promise.resolve(
        trash
          .filter(({ restorePointId }) => ids.includes(restorePointId))
          .map((each) => ({ ...signOf(each), lineage: each.manifest.lineage, takenAt: each.manifest.takenAt })),
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

  describe('in parts', () => {
    const many = (from: number, count: number): SealedRestorePoint[] =>
      Array.from({ length: count }, (_, at) => {
        const takenAt = new Date(Date.parse('2020-01-01T00:00:00.000Z') + (from + at) * 3_600_000).toISOString();
        const { manifest, ...rest } = point(1);
        const times = { takenAt, nominalTime: takenAt, sealedAt: takenAt };
        return { ...rest, restorePointId: id(from + at), manifest: { ...manifest, ...times } };
      });
    type Held = ReturnType<typeof repository>;

    /** As a workflow asks: until nothing is left. `lose`: so many answers get lost, and are asked for again. */
    async function askAll(held: Held, lineages: LineagePolicy[], options: { dryRun: boolean; lose?: number }) {
      const answers: LineageRetention[] = [];
      let lose = options.lose ?? 0;
      for (let left = lineages; left.length > 0;) {
        const question = { lineages: left, dryRun: options.dryRun };
        if ((lose -= 1) >= 0) await applyRetention(held, { ...question, again: false });
        const said = await applyRetention(held, { ...question, again: lose >= 0 });
        expect(JSON.stringify(said).length).toBeLessThan(256 * 1024);
        answers.push(...said);
        left = leftToRetain(left, said);
      }
      return answers;
    }
    /** What is removed is in the trash from then on. */
    function living(
      points: SealedRestorePoint[],
      refuses: Record<string, TidemarkError> = {},
      trash: SealedRestorePoint[] = [],
    ) {
      const held = repository(points, refuses, november25, trash);
      const { removeRestorePoint } = held;
      const removing: Held['removeRestorePoint'] = async (restorePoint, last) => {
        const outcome = await removeRestorePoint(restorePoint, last);
        const at = points.findIndex(({ restorePointId }) => restorePointId === restorePoint);
        trash.push(...points.splice(at, 1));
        return outcome;
      };
      return { ...held, removeRestorePoint: removing };
    }
    const gone = { ...of, vmGoneSince: '2026-11-03T00:00:00.000Z' };
    const idsIn = (answers: LineageRetention[]): RestorePointId[] =>
      answers.flatMap(({ decisions, trashed = [] }) => [
        ...decisions.filter(({ outcome }) => outcome !== 'stays').map(({ restorePointId }) => restorePointId),
        ...trashed.map(({ restorePointId }) => restorePointId),
      ]);

    it('a VM with 10 000 restore points that all go: no answer is long, each is told once, oldest first', async () => {
      const points = many(0, 10_000);
      const wanted = points.map(({ restorePointId }) => restorePointId);
      const held = living([...points]);
      const answers = await askAll(held, [gone, { ...of, lineage: lineageId('l9') }], { dryRun: false });
      expect(held.removed.map((each) => each.id)).toEqual(wanted);
      expect(idsIn(answers).toSorted()).toEqual(wanted);
      expect(answers.at(-1)).toMatchObject({ lineage: 'l9', decisions: [] });
      expect(answers.length).toBeGreaterThan(20);
    });

    it('a dry run, too, with all that stays; over the end of a lineage', async () => {
      const [few, rest] = [many(0, 700), many(700, 700)];
      const other = rest.map((each) => ({ ...each, manifest: { ...each.manifest, lineage: lineageId('l2') } }));
      const held = living([...few, ...other]);
      const lineages = [of, { ...of, lineage: lineageId('l2'), policy: null }];
      const answers = await askAll(held, lineages, { dryRun: true });
      expect(held.removed).toEqual([]);
      const told = answers.flatMap(({ decisions }) => decisions.toReversed());
      expect(told.map(({ restorePointId }) => restorePointId)).toEqual(Array.from({ length: 1400 }, (_, at) => id(at)));
      expect(told.filter(({ outcome }) => outcome === 'stays')).toHaveLength(701);
      expect(answers.reduce((sum, { stays }) => sum + stays, 0)).toBe(701);
    });

    it('goes past what the repository refuses', async () => {
      const refusal = new TidemarkError('RESTORE_POINT_HELD', 'locked until 2027');
      const refuses = Object.fromEntries(Array.from({ length: 600 }, (_, at) => [id(at), refusal]));
      const held = living(many(0, 1300), refuses);
      const answers = await askAll(held, [of], { dryRun: false });
      expect(held.removed.map((each) => each.id)).toEqual(Array.from({ length: 699 }, (_, at) => id(600 + at)));
      expect(idsIn(answers)).toHaveLength(1299);
      expect(answers.reduce((sum, { stays }) => sum + stays, 0)).toBe(1);
    });

    it('with answers lost: what was removed is told all the same, among much else in the trash', async () => {
      const all = many(0, 3000);
      const held = living(
        all.filter((_, at) => at % 2 === 0),
        {},
        all.filter((_, at) => at % 2 === 1),
      );
      const answers = await askAll(held, [gone], { dryRun: false, lose: 2 });
      expect(held.removed).toHaveLength(1500);
      const told = idsIn(answers);
      for (const { id: removed } of held.removed) expect(told).toContain(removed);
      expect(new Set(told).size).toBe(told.length);
    });
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

  it('says of which lineage it removes nothing because of a wrong date, once, and removes of the others', async () => {
    const ahead = point(9);
    Object.assign(ahead.manifest, { takenAt: '2031-01-01T00:00:00.000Z', sealedAt: '2031-01-01T00:00:00.001Z' });
    const points = [point(1), point(2), ahead];
    const other = [point(3, { lineage: 'l2' }), point(4, { lineage: 'l2' })];
    const held = repository([...points, ...other]);
    const lineages = [of, { ...of, lineage: lineageId('l2') }, { ...of, policy: null }];
    const answers = await applyRetention(held, { lineages, dryRun: false, again: false });
    const message = `it is ${asOf}, and restore point ${id(9)} is dated 2031-01-01T00:00:00.000Z`;
    expect(answers.map(({ stays, doubt }) => [stays, doubt])).toEqual([
      [3, { code: 'RESTORE_POINT_DATE', message }],
      [1, undefined],
      [3, undefined],
    ]);
    expect(held.removed).toEqual([{ id: id(3), last: false }]);
    const parts = { lineages: [of], dryRun: true, again: false, mostTold: 2 };
    const [first] = await applyRetention(held, parts);
    const [second] = await applyRetention(held, { ...parts, lineages: [{ ...of, after: first!.next! }] });
    expect([first!.doubt?.message, second!.decisions.length, second!.doubt]).toEqual([message, 1, undefined]);
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

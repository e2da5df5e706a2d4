import { describe, expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import {
  months,
  weekdays,
  type RetentionDecision,
  type RetentionPoint,
  type RetentionPolicy,
  type RetentionQuestion,
} from '../../../schema/domain/retention.ts';
import { seeded, type Next } from '../../../tests/fixtures/mover/disks.ts';
import { decideRetention, describeDecision } from './retention.ts';

const DAY_MS = 86_400_000;
const NOW = '2026-11-24T23:00:00.000Z';
const none: RetentionPolicy = {
  count: null,
  days: null,
  weekly: null,
  monthly: null,
  yearly: null,
  minimum: 1,
  deletedVmDays: null,
  timeZone: 'UTC',
};
const point = (takenAt: string, more: Partial<RetentionPoint> = {}): RetentionPoint => ({
  restorePointId: restorePointId(takenAt),
  takenAt,
  nominalTime: takenAt,
  sealedAt: takenAt,
  state: 'good',
  keep: false,
  hold: null,
  lockedUntil: null,
  ...more,
});
const at = (date: string): string => `${date}T20:00:00.000Z`;
/** One each day at 20:00 UTC, `count` of them up to `last`, newest first. */
const daily = (last: string, count: number): RetentionPoint[] =>
  Array.from({ length: count }, (_, i) => point(new Date(Date.parse(at(last)) - i * DAY_MS).toISOString()));

type Policy = Partial<RetentionPolicy>;
const decide = (points: RetentionPoint[], policy: Policy, more: Partial<RetentionQuestion> = {}): RetentionDecision[] =>
  decideRetention({ points, policy: { ...none, ...policy }, now: NOW, vmGoneSince: null, ...more });
const stayingOf = (decisions: RetentionDecision[]): string[] =>
  decisions.filter(({ stays }) => stays).map((each) => each.restorePointId);
/** Ids of what stays, newest first. */
const stays = (...question: Parameters<typeof decide>): string[] => stayingOf(decide(...question));
/** The same as dates of 2026. */
const dates = (...question: Parameters<typeof decide>): string[] => stays(...question).map((id) => id.slice(5, 10));
/** What is said of each, by date. */
const said = (...question: Parameters<typeof decide>): Record<string, string> =>
  Object.fromEntries(decide(...question).map((each) => [each.restorePointId.slice(5, 10), describeDecision(each)]));

describe('each rule', () => {
  test('count: the newest', () => {
    expect(said(daily('2026-11-24', 4), { count: 2 })).toEqual({
      '11-24': 'stays: the newest good one; among the newest 2',
      '11-23': 'stays: among the newest 2',
      '11-22': 'goes: not among the newest 2 and not needed for the minimum of 1 good',
      '11-21': 'goes: not among the newest 2 and not needed for the minimum of 1 good',
    });
  });

  test('days: today does not count, and days without a restore point do', () => {
    const idle = [...daily('2026-11-24', 1), ...daily('2026-11-14', 9)];
    expect(dates(idle, { days: 10 })).toEqual(['11-24', '11-14']);
    expect(dates(idle, { days: 12 })).toEqual(['11-24', '11-14', '11-13', '11-12']);
    expect(said(idle, { days: 10 })).toMatchObject({
      '11-14': 'stays: not older than 10 days',
      '11-13': 'goes: older than 10 days and not needed for the minimum of 1 good',
    });
  });

  const newest = point(at('2026-11-24'));

  test('days: one that was due before midnight and taken after it belongs to the day before', () => {
    const late = point('2026-11-15T01:00:00.000Z', { nominalTime: '2026-11-14T22:00:00.000Z' });
    expect(dates([newest, late], { days: 9 })).toEqual(['11-24']);
    expect(dates([newest, late], { days: 10 })).toEqual(['11-24', '11-15']);
  });

  test.each(['1990-01-01T00:00:00.000Z', '2030-01-01T00:00:00.000Z', 'soon'])(
    'days: a due time of %s makes none older or younger',
    (nominalTime) => {
      const odd = point('2026-11-15T01:00:00.000Z', { nominalTime });
      expect(dates([newest, odd], { days: 9 })).toEqual(['11-24', '11-15']);
      expect(dates([newest, odd], { days: 8 })).toEqual(['11-24']);
    },
  );

  test.each([
    // 2026-03-29 has 23 hours: midnight is 23:00 UTC before it and 22:00 UTC behind it.
    ['spring', ['2026-03-29T22:00:00.000Z', '2026-03-28T23:00:00.000Z'], '2026-03-30T21:59:59.000Z', 2],
    ['spring', ['2026-03-29T22:00:00.000Z', '2026-03-28T23:00:00.000Z'], '2026-03-30T22:00:00.000Z', 1],
    ['spring', ['2026-03-29T22:00:00.000Z', '2026-03-28T22:59:59.000Z'], '2026-03-30T21:59:59.000Z', 1],
    // 2026-10-25 has 25 hours: midnight is 22:00 UTC before it and 23:00 UTC behind it.
    ['autumn', ['2026-10-25T23:00:00.000Z', '2026-10-24T22:00:00.000Z'], '2026-10-26T22:59:59.000Z', 2],
    ['autumn', ['2026-10-25T23:00:00.000Z', '2026-10-25T22:59:59.000Z'], '2026-10-26T23:00:00.000Z', 1],
    ['autumn', ['2026-10-25T23:00:00.000Z', '2026-10-24T21:59:59.000Z'], '2026-10-26T22:59:59.000Z', 1],
  ])('days: in the zone of the site, when the clock changes in %s (%s at %s)', (_, taken, now, count) => {
    const points = taken.map((each) => point(each));
    expect(stays(points, { days: 1, timeZone: 'Europe/Berlin' }, { now })).toEqual(taken.slice(0, count));
  });

  test('weekly: of each of the newest weeks the first', () => {
    const policy: Policy = { weekly: { keep: 3, weekday: 'monday' } };
    expect(dates(daily('2026-11-24', 20), policy)).toEqual(['11-24', '11-23', '11-16', '11-09']);
    expect(said(daily('2026-11-24', 20), policy)).toMatchObject({
      '11-16': 'stays: weekly of week 2026-W47',
      '11-15': 'goes: not one of the 3 weekly ones and not needed for the minimum of 1 good',
    });
  });

  test('weekly on a weekday: that one; while the week has none yet, or never had, the last before it', () => {
    const policy: Policy = { weekly: { keep: 4, weekday: 'sunday' } };
    expect(dates(daily('2026-11-24', 20), policy)).toEqual(['11-24', '11-22', '11-15', '11-08']);
    const missed = daily('2026-11-24', 20).filter(({ takenAt }) => takenAt !== at('2026-11-15'));
    expect(dates(missed, policy)).toEqual(['11-24', '11-22', '11-14', '11-08']);
  });

  test('weekly: idle weeks cost nothing', () => {
    const idle = [...daily('2026-11-24', 1), ...daily('2026-08-05', 12)];
    expect(dates(idle, { weekly: { keep: 3, weekday: 'monday' } })).toEqual(['11-24', '08-03', '07-27']);
  });

  test('weekly: the newest weeks are those of the calendar, also when one was taken later than due', () => {
    const late = point('2026-11-23T01:00:00.000Z', { nominalTime: at('2026-11-22') });
    const onTime = point('2026-11-23T00:30:00.000Z');
    expect(stays([late, onTime], { weekly: { keep: 1, weekday: 'monday' } })).toEqual([late.takenAt, onTime.takenAt]);
  });

  test('monthly and yearly, beside each other', () => {
    const decisions = decide(daily('2026-11-24', 800), {
      monthly: { keep: 3 },
      yearly: { keep: 3, month: 'november' },
    });
    expect(
      decisions.filter((each) => each.stays).map((each) => [each.restorePointId.slice(0, 10), ...each.reasons]),
    ).toEqual([
      ['2026-11-24', 'the newest good one'],
      ['2026-11-01', 'monthly of month 2026-11', 'yearly of year 2026'],
      ['2026-10-01', 'monthly of month 2026-10'],
      ['2026-09-01', 'monthly of month 2026-09'],
      ['2025-11-01', 'yearly of year 2025'],
      ['2024-11-01', 'yearly of year 2024'],
    ]);
    expect(decisions[1]!.reasons).toEqual([
      'not one of the 3 monthly or 3 yearly ones and not needed for the minimum of 1 good',
    ]);
  });

  test('all of them: what goes says which did not keep it', () => {
    const policy: Policy = {
      count: 7,
      days: 14,
      weekly: { keep: 4, weekday: 'monday' },
      monthly: { keep: 1 },
      yearly: { keep: 1, month: 'january' },
      minimum: 3,
    };
    expect(said(daily('2026-11-24', 30), policy)['11-08']).toBe(
      'goes: older than 14 days, not among the newest 7, not one of the 4 weekly, 1 monthly or 1 yearly ones and ' +
        'not needed for the minimum of 3 good',
    );
  });
});

describe('good ones', () => {
  const [a, b, c, d, e] = daily('2026-11-24', 5);

  test('the floor counts good ones only', () => {
    const points = [a!, { ...b!, state: 'suspect' as const }, c!, d!, e!];
    expect(said(points, { days: 1, minimum: 3 }, { now: '2026-11-25T00:00:00.000Z' })).toEqual({
      '11-24': 'stays: one of the 3 newest good ones; not older than 1 day',
      '11-23': 'goes: older than 1 day and not needed for the minimum of 3 good',
      '11-22': 'stays: one of the 3 newest good ones',
      '11-21': 'stays: one of the 3 newest good ones',
      '11-20': 'goes: older than 1 day and not needed for the minimum of 3 good',
    });
  });

  test('with fewer than the minimum nothing goes', () => {
    const points = [a!, b!, ...[c!, d!].map((each) => ({ ...each, state: 'damaged' as const }))];
    expect(said(points, { count: 1, minimum: 3 })['11-21']).toBe('stays: only 2 good of at least 3 are there');
    expect(dates(points, { count: 1, minimum: 2 })).toEqual(['11-24', '11-23']);
  });

  test('those of another state do not count among the newest, and stay as long as what is counted around them', () => {
    const points = [a!, { ...b!, state: 'damaged' as const }, c!, { ...d!, state: 'suspect' as const }, e!];
    expect(said(points, { count: 2 })).toMatchObject({
      '11-23': 'stays: among the newest 2 (damaged: not counted)',
      '11-22': 'stays: among the newest 2',
      '11-21': 'goes: not among the newest 2 and not needed for the minimum of 1 good',
    });
  });

  test('what is newer than the newest good one stays until a newer good one is sealed', () => {
    const bad = [a!, b!].map((each) => ({ ...each, state: 'suspect' as const }));
    const policy: Policy = { monthly: { keep: 1 } };
    expect(said([...bad, c!, d!], policy)).toMatchObject({
      '11-24': 'stays: no newer good one is sealed',
      '11-23': 'stays: no newer good one is sealed',
      '11-22': 'stays: the newest good one',
    });
    const newer = [...daily('2026-11-25', 1), ...bad, c!, d!];
    expect(dates(newer, policy, { now: '2026-11-26T00:00:00.000Z' })).toEqual(['11-25', '11-21']);
  });

  test('a good one stands for its week before a suspect one, and a suspect one before none', () => {
    const days = daily('2026-11-24', 17).map((each) => {
      const date = each.takenAt.slice(8, 10);
      if (date === '16') return { ...each, state: 'suspect' as const };
      return Number(date) < 16 ? { ...each, state: date === '10' ? ('suspect' as const) : ('damaged' as const) } : each;
    });
    expect(said(days, { weekly: { keep: 3, weekday: 'monday' } })).toMatchObject({
      '11-17': 'stays: weekly of week 2026-W47',
      '11-16': 'goes: not one of the 3 weekly ones and not needed for the minimum of 1 good',
      '11-10': 'stays: weekly of week 2026-W46 (suspect: not counted)',
      '11-09': 'goes: not one of the 3 weekly ones and not needed for the minimum of 1 good',
    });
  });
});

describe('what a person or a lock said', () => {
  const [a, b, c] = daily('2026-11-24', 3);

  test('kept, held and locked ones stay', () => {
    const points = [a!, b!, { ...c!, keep: true, hold: 'audit 17 of anna', lockedUntil: '2026-12-01T00:00:00.000Z' }];
    expect(said(points, { count: 1 })['11-22']).toBe(
      'stays: marked to be kept; held: audit 17 of anna; locked until 2026-12-01T00:00:00.000Z',
    );
  });

  test('a lock ends at its time, and one that cannot be read does not', () => {
    const locked = (lockedUntil: string): string[] => dates([a!, { ...b!, lockedUntil }], { count: 1 });
    expect(locked(NOW)).toEqual(['11-24']);
    expect(locked('2026-11-24T23:00:00.001Z')).toEqual(['11-24', '11-23']);
    expect(locked('for ever')).toEqual(['11-24', '11-23']);
  });

  test('a job without retention keeps everything', () => {
    const decisions = decideRetention({ points: daily('2026-11-24', 99), policy: null, now: NOW, vmGoneSince: NOW });
    expect(decisions).toHaveLength(99);
    expect(new Set(decisions.map(describeDecision))).toEqual(
      new Set(['stays: no job of the site says how long it stays']),
    );
  });
});

describe('in doubt nothing goes', () => {
  const points = daily('2026-11-24', 3);
  const texts = (...question: Parameters<typeof decide>): Set<string> =>
    new Set(decide(...question).map(describeDecision));

  test('the clock shows a day less than when something was taken', () => {
    expect(texts(points, { count: 1 }, { now: at('2026-11-23') })).toEqual(
      new Set([
        'stays: nothing is removed: it is 2026-11-23T20:00:00.000Z, and restore point 2026-11-24T20:00:00.000Z is dated 2026-11-24T20:00:00.000Z',
      ]),
    );
    expect(dates(points, { count: 1 }, { now: '2026-11-23T20:00:00.001Z' })).toEqual(['11-24']);
  });

  test('some were taken while two clocks were ahead, until they are removed', () => {
    const ahead = ['2031-01-01T00:00:00.000Z', '2031-01-02T00:00:00.000Z'].map((each) => point(each));
    expect(texts([...ahead, ...points], { count: 1 })).toEqual(
      new Set([
        `stays: nothing is removed: it is ${NOW}, and restore point 2031-01-02T00:00:00.000Z is dated ` +
          '2031-01-02T00:00:00.000Z, and 1 more after that time',
      ]),
    );
    const sealedAfter = { ...points[0]!, sealedAt: '2031-01-02T00:00:00.001Z' };
    expect(dates([sealedAfter, ...points.slice(1)], { count: 1 })).toEqual(['11-24']);
    expect(stays([sealedAfter, ahead[0]!, ...points.slice(1)], { count: 1 })).toHaveLength(4);
  });

  test('the clock is years ahead: days run out, the newest good ones stay', () => {
    expect(dates(points, { days: 14, minimum: 2 }, { now: '2036-01-01T00:00:00.000Z' })).toEqual(['11-24', '11-23']);
  });

  test('a time cannot be read', () => {
    const text = 'stays: nothing is removed: "yesterday" is not a time';
    expect(texts(points, { count: 1 }, { now: 'yesterday' })).toEqual(new Set([text]));
    expect(texts(points, { count: 1 }, { vmGoneSince: 'yesterday' })).toEqual(new Set([text]));
    expect(texts([{ ...points[0]!, takenAt: 'yesterday' }, points[1]!], { count: 1 })).toEqual(new Set([text]));
  });
});

describe('clocks that were wrong', () => {
  const days30: Policy = { days: 30, minimum: 3 };
  type Shown = Record<'temporal' | 'host' | 'repository', number>;
  /** What each clock shows at 20:00 of a night; ms. */
  type Clocks = (night: number, rightMs: number) => Partial<Shown>;
  const nightMs = (night: number): number => Date.parse(at('2026-11-01')) + night * DAY_MS;
  const dateOf = (night: number): string => new Date(nightMs(night)).toISOString();

  /** One session each night, named by its right date, then retention; each night's points, newest first. */
  function nightly(count: number, policy: Policy, clocks: Clocks): string[][] {
    let points: RetentionPoint[] = [];
    return Array.from({ length: count }, (_, night) => {
      const rightMs = nightMs(night);
      const right = { temporal: rightMs, host: rightMs + 60_000, repository: rightMs + 120_000 };
      const shown: Shown = { ...right, ...clocks(night, rightMs) };
      const lastMs = Math.max(0, ...points.map(({ sealedAt }) => Date.parse(sealedAt)));
      const sealed = point(new Date(shown.host).toISOString(), {
        restorePointId: restorePointId(dateOf(night)),
        nominalTime: new Date(shown.temporal).toISOString(),
        sealedAt: new Date(Math.max(shown.repository, lastMs + 1)).toISOString(),
      });
      points = [sealed, ...points];
      // Else repository time stands still, and nothing is decided.
      const isRight = shown.temporal === right.temporal && shown.repository === right.repository;
      const now = new Date(right.repository + 1000).toISOString();
      const staying = new Set(isRight ? stays(points, policy, { now }) : points.map((each) => each.restorePointId));
      points = points.filter((each) => staying.has(each.restorePointId));
      return points.map((each) => each.restorePointId);
    });
  }
  const lastNights = (night: number, count: number): string[] =>
    Array.from({ length: Math.min(night + 1, count) }, (_, back) => dateOf(night - back));

  test.each([-60, -1, 2, 3000])('that of the hypervisor host, by %i days from the 30th night on', (days) => {
    const clocks: Clocks = (night, rightMs) => (night < 30 ? {} : { host: rightMs + days * DAY_MS });
    for (const [night, left] of nightly(70, days30, clocks).entries()) expect(left).toEqual(lastNights(night, 31));
    for (const [night, left] of nightly(70, { count: 7 }, clocks).entries()) expect(left).toEqual(lastNights(night, 7));
  });

  test('that of the repository host, for one night: later seals only follow it', () => {
    const year2031 = Date.parse(at('2031-01-01'));
    const all = nightly(70, days30, (night) => (night === 30 ? { repository: year2031 } : {}));
    for (const [night, left] of all.entries()) if (night !== 30) expect(left).toEqual(lastNights(night, 31));
  });

  test('that of the one machine there is, behind for five nights: what was sealed then stays as long as what was before', () => {
    const all = nightly(70, days30, (night, rightMs) => {
      const wrong = rightMs - 60 * DAY_MS;
      return night < 30 || night >= 35 ? {} : { temporal: wrong, host: wrong, repository: wrong };
    });
    // The night before was the 29th.
    for (const left of all.slice(35, 60)) expect(left).toEqual(expect.arrayContaining(lastNights(34, 6)));
    expect(all[60]).toEqual(lastNights(60, 26));
  });

  test('none of them takes a week, month or year from those that were sealed when they were right', () => {
    const weekly: Policy = { weekly: { keep: 6, weekday: 'monday' } };
    const right = nightly(70, weekly, () => ({})).at(-1);
    const behind: Clocks = (night, rightMs) => (night === 40 ? { host: rightMs - 60 * DAY_MS } : {});
    expect(nightly(70, weekly, behind).at(-1)).toEqual(right);
  });
});

describe('a VM that is gone', () => {
  const points = daily('2026-11-01', 40);
  const policy: Policy = { days: 7, minimum: 3, deletedVmDays: 30 };

  test('goes after its own period, counted from what came last', () => {
    const gone = (vmGoneSince: string, now: string): number => stays(points, policy, { vmGoneSince, now }).length;
    expect(gone(at('2026-11-10'), '2026-12-10T12:00:00.000Z')).toBe(3);
    expect(gone(at('2026-11-10'), '2026-12-11T00:00:00.000Z')).toBe(0);
    // Taken after it was said to be gone.
    expect(gone(at('2026-10-01'), '2026-12-01T23:00:00.000Z')).toBe(3);
    expect(gone(at('2026-10-01'), '2026-12-02T00:00:00.000Z')).toBe(0);
    expect(
      stays(points, { ...policy, deletedVmDays: null }, { vmGoneSince: at('2026-11-10'), now: at('2036-01-01') }),
    ).toHaveLength(3);
    expect(said(points, policy, { vmGoneSince: at('2026-11-10'), now: at('2027-01-01') })['11-01']).toBe(
      'goes: the VM has been gone for more than 30 days',
    );
  });

  test('what is held, and the last months and years of the calendar, stay', () => {
    const some = [...points.slice(0, 5), { ...points[5]!, hold: 'audit' }, ...points.slice(6)];
    const monthly: Policy = { ...policy, monthly: { keep: 3 } };
    const inYear = (now: string): string[] => dates(some, monthly, { vmGoneSince: at('2026-11-10'), now });
    expect(inYear('2026-12-20T00:00:00.000Z')).toEqual(['11-01', '10-27', '10-01']);
    expect(inYear('2027-01-20T00:00:00.000Z')).toEqual(['11-01', '10-27']);
    expect(inYear('2027-02-01T00:00:00.000Z')).toEqual(['10-27']);
  });
});

// ---- properties --------------------------------------------------------------------------------

const maybe = <T>(next: Next, value: () => T): T | null => (next(2) === 0 ? null : value());

function randomPolicy(next: Next): RetentionPolicy {
  return {
    count: maybe(next, () => 1 + next(20)),
    days: maybe(next, () => 1 + next(60)),
    weekly: maybe(next, () => ({ keep: 1 + next(8), weekday: weekdays[next(7)]! })),
    monthly: maybe(next, () => ({ keep: 1 + next(12) })),
    yearly: maybe(next, () => ({ keep: 1 + next(3), month: months[next(12)]! })),
    minimum: 1 + next(5),
    deletedVmDays: maybe(next, () => 1 + next(300)),
    timeZone: ['UTC', 'Europe/Berlin', 'America/Santiago', 'Pacific/Apia', 'Asia/Kathmandu'][next(5)]!,
  };
}

/** What clocks show at a time, some of them far off: always right, seldom wrong, or wrong each second time. */
function randomClock(next: Next): (rightMs: number) => number {
  const wrongOf10 = [0, 1, 5][next(3)]!;
  const aheadOf10 = next(3);
  return (rightMs) => {
    if (next(10) >= wrongOf10) return rightMs;
    return rightMs + (next(10) < aheadOf10 ? 1 : -1) * next(400) * DAY_MS;
  };
}

function randomQuestion(next: Next): RetentionQuestion {
  const nowMs = Date.parse(NOW) + next(400) * DAY_MS;
  const span = [3, 40, 900][next(3)]! * DAY_MS;
  const badness = next(4);
  const shownAt = randomClock(next);
  let sealedMs = 0;
  const taken = Array.from({ length: next(60) }, () => nowMs - next(span)).toSorted((a, b) => a - b);
  const points = taken.map((takenMs, i) => {
    // As a repository seals: never before an earlier one.
    sealedMs = Math.max(shownAt(Math.min(nowMs, takenMs + next(7_200_000))), sealedMs + 1);
    return point(new Date(shownAt(takenMs)).toISOString(), {
      restorePointId: restorePointId(`p${i}`),
      nominalTime: new Date(shownAt(takenMs - next(40 * 3_600_000))).toISOString(),
      sealedAt: new Date(sealedMs).toISOString(),
      state: next(4) < badness ? (['suspect', 'damaged'] as const)[next(2)]! : 'good',
      keep: next(20) === 0,
      hold: next(20) === 0 ? 'a reason' : null,
      lockedUntil: next(20) === 0 ? new Date(nowMs + (next(2) === 0 ? 1 : 0)).toISOString() : null,
    });
  });
  const vmGoneSince = next(3) === 0 ? new Date(nowMs - next(span)).toISOString() : null;
  return { points, policy: randomPolicy(next), now: new Date(nowMs).toISOString(), vmGoneSince };
}

const more = (value: number | null, next: Next): number | null => (value === null ? value : value + next(9));

/** Every rule as it is, or more of it. */
function moreGenerous(policy: RetentionPolicy, next: Next): RetentionPolicy {
  const richer = randomPolicy(next);
  const { weekly, monthly, yearly } = policy;
  return {
    ...policy,
    count: more(policy.count, next) ?? richer.count,
    days: more(policy.days, next) ?? richer.days,
    weekly: weekly ? { ...weekly, keep: weekly.keep + next(4) } : richer.weekly,
    monthly: monthly ? { keep: monthly.keep + next(4) } : richer.monthly,
    yearly: yearly ? { ...yearly, keep: yearly.keep + next(2) } : richer.yearly,
    minimum: policy.minimum + next(3),
    deletedVmDays: next(3) === 0 ? null : more(policy.deletedVmDays, next),
  };
}

const goodOf = (points: readonly RetentionPoint[]): number => points.filter(({ state }) => state === 'good').length;
/** Ids of those sealed last. */
const lastSealed = (points: readonly RetentionPoint[], count: number): string[] =>
  points
    .toSorted((a, b) => (a.sealedAt < b.sealedAt ? 1 : -1))
    .slice(0, count)
    .map(({ restorePointId: id }) => id);

/** What does not hold of a question and its answer. */
function broken(question: RetentionQuestion, next: Next): string[] {
  const { points, policy, now } = question;
  const decisions = decideRetention(question);
  const staying = new Set(stayingOf(decisions));
  const left = points.filter((each) => staying.has(each.restorePointId));
  const purged = decisions.some(({ reasons }) => reasons[0]!.startsWith('the VM has been gone'));
  const heldOnes = points.filter((each) => each.keep || each.hold !== null || (each.lockedUntil ?? '') > now);
  const again = decideRetention({ ...question, points: left });
  const shuffled = decideRetention({ ...question, points: [...points].sort(() => next(3) - 1) });
  const generous = moreGenerous(policy!, next);
  const withMore = new Set(stayingOf(decideRetention({ ...question, policy: generous })));
  const checks: Record<string, boolean> = {
    'each has a decision with a reason': decisions.filter(({ reasons }) => reasons.length > 0).length === points.length,
    'the floor holds': purged || goodOf(left) >= Math.min(policy!.minimum, goodOf(points)),
    'the one sealed last stays': purged || lastSealed(points, 1).every((id) => staying.has(id)),
    'the good ones sealed last stay':
      purged ||
      lastSealed(
        points.filter(({ state }) => state === 'good'),
        policy!.minimum,
      ).every((id) => staying.has(id)),
    'only a gone VM is purged': !purged || question.vmGoneSince !== null,
    'what is held stays': heldOnes.every((each) => staying.has(each.restorePointId)),
    'asked again, nothing more goes': again.every(({ stays }) => stays),
    'the order does not matter': JSON.stringify(shuffled) === JSON.stringify(decisions),
    [`more keeps as much: ${JSON.stringify(generous)}`]: [...staying].every((id) => withMore.has(id)),
  };
  return Object.keys(checks).filter((name) => !checks[name]);
}

test('properties of random lineages and policies', () => {
  const { seed, next } = seeded();
  for (let round = 0; round < 150; round += 1) {
    const question = randomQuestion(next);
    const wrong = broken(question, next);
    if (wrong.length > 0)
      expect.fail(`${wrong.join('; ')} (seed ${seed}, round ${round}: ${JSON.stringify(question)})`);
  }
});

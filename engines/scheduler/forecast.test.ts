import { describe, expect, it } from 'vitest';
import { alarmsOf, daysUntilFull, type FreeOnDay } from './forecast.ts';

const dayOf = (number: number): string => new Date(Date.UTC(2026, 0, 1 + number)).toISOString().slice(0, 10);
const days = (free: number[], totalBytes = 1000): FreeOnDay[] =>
  free.map((freeBytes, at) => ({ day: dayOf(at), freeBytes, totalBytes }));

describe('days until full', () => {
  it.each([
    ['nothing is known', [], null],
    ['three days say nothing', [500, 400, 300], null],
    ['it grows by 10 a day', [540, 530, 520, 510, 500], 50],
    ['nothing changes', [500, 500, 500, 500], null],
    ['it becomes emptier', [500, 510, 520, 530], null],
    ['one day somebody else had much on it', [540, 530, 100, 510, 500, 490, 480], 48],
    ['each week frees what it took', [50, 40, 30, 50, 40, 30, 50, 40, 30, 50], null],
    ['it is full', [30, 20, 10, 0], 0],
  ])('%s', (_what, free, expected) => {
    expect(daysUntilFull(days(free))).toBe(expected);
  });

  it('takes days in any order, and days that are missing', () => {
    const history = [0, 2, 5, 9].map((at) => ({ day: dayOf(at), freeBytes: 500 - 10 * at, totalBytes: 1000 }));
    expect(daysUntilFull(history.toReversed())).toBe(41);
  });

  it('counts from when the disk got its size: a larger one is no trend', () => {
    const before = days([40, 30, 20, 10], 1000);
    const after = [4, 5, 6, 7].map((at) => ({ day: dayOf(at), freeBytes: 1000 - 10 * (at - 4), totalBytes: 2000 }));
    expect(daysUntilFull([...before, ...after])).toBe(97);
    expect(daysUntilFull([...before, ...after.slice(0, 2)])).toBeNull();
  });

  it('looks back 30 days only', () => {
    const old = days([9000, 8000, 7000, 6000]);
    const recent = [60, 61, 62, 63].map((at) => ({ day: dayOf(at), freeBytes: 500 - (at - 60), totalBytes: 1000 }));
    expect(daysUntilFull([...old, ...recent])).toBe(497);
  });
});

describe('alarms', () => {
  const picture = { repositoryId: 'main', alarms: { freePercent: 10, daysUntilFull: 14 } };
  const messages = (of: Parameters<typeof alarmsOf>[0]): string[] => alarmsOf(of).map(({ message }) => message);

  it('tell what is below its threshold', () => {
    const space = { freeBytes: 99, totalBytes: 1000 };
    expect(alarmsOf({ ...picture, space, daysUntilFull: 13 })).toEqual([
      {
        level: 'warning',
        code: 'REPOSITORY_FILLING',
        message: 'repository main has 99 B (9.9 %) free, less than 10 %',
      },
      {
        level: 'warning',
        code: 'REPOSITORY_FILLING',
        message: 'repository main will be full in 13 days at the present rate (99 B (9.9 %) free)',
      },
    ]);
  });

  it('are silent when all is well, nothing is known, nobody wants them', () => {
    const space = { freeBytes: 100, totalBytes: 1000 };
    expect(messages({ ...picture, space, daysUntilFull: 14 })).toEqual([]);
    expect(messages({ ...picture, space: null, daysUntilFull: 1 })).toEqual([]);
    expect(messages({ ...picture, space: { freeBytes: 0, totalBytes: 0 }, daysUntilFull: null })).toEqual([]);
    const full = { space: { freeBytes: 0, totalBytes: 1000 }, daysUntilFull: 0 };
    expect(messages({ ...picture, ...full, alarms: undefined })).toEqual([]);
    expect(messages({ ...picture, ...full, alarms: { freePercent: 0, daysUntilFull: 0 } })).toEqual([]);
    expect(messages({ ...picture, ...full })).toHaveLength(2);
  });
});

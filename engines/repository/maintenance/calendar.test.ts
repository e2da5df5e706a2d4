import { expect, test } from 'vitest';
import { createDayOf, month, weekFrom, yearFrom } from './calendar.ts';

const day = (date: string): number => Date.parse(`${date}T00:00:00Z`) / 86_400_000;
const dayIn = (timeZone: string, instant: string): number => createDayOf(timeZone)(Date.parse(instant));

test.each([
  ['UTC', '2026-11-24T23:59:59.999Z', '2026-11-24'],
  ['Europe/Berlin', '2026-11-24T23:00:00Z', '2026-11-25'],
  ['America/Los_Angeles', '2026-11-25T07:59:59Z', '2026-11-24'],
  ['Asia/Kathmandu', '2026-11-24T18:15:00Z', '2026-11-25'],
  // The day of 23 hours: 00:00 is 23:00 UTC, the next midnight already 22:00 UTC.
  ['Europe/Berlin', '2026-03-28T22:59:59Z', '2026-03-28'],
  ['Europe/Berlin', '2026-03-28T23:00:00Z', '2026-03-29'],
  ['Europe/Berlin', '2026-03-29T21:59:59Z', '2026-03-29'],
  ['Europe/Berlin', '2026-03-29T22:00:00Z', '2026-03-30'],
  // The day of 25 hours.
  ['Europe/Berlin', '2026-10-24T22:00:00Z', '2026-10-25'],
  ['Europe/Berlin', '2026-10-25T22:59:59Z', '2026-10-25'],
  ['Europe/Berlin', '2026-10-25T23:00:00Z', '2026-10-26'],
  // Midnight itself is skipped here.
  ['America/Santiago', '2026-09-06T03:59:59Z', '2026-09-05'],
  ['America/Santiago', '2026-09-06T04:00:00Z', '2026-09-06'],
  // Samoa had no 30 December 2011.
  ['Pacific/Apia', '2011-12-30T09:59:59Z', '2011-12-29'],
  ['Pacific/Apia', '2011-12-30T10:00:00Z', '2011-12-31'],
])('in %s, %s is on %s', (zone, instant, date) => {
  expect(dayIn(zone, instant)).toBe(day(date));
});

test('a zone that is not one is refused', () => {
  expect(() => createDayOf('Europe/Nowhere')).toThrow(RangeError);
});

const week = weekFrom('sunday');

test.each([
  ['2026-11-16', 'week 2026-W47', '2026-11-22'],
  ['2026-11-22', 'week 2026-W47', '2026-11-22'],
  ['2026-11-23', 'week 2026-W48', '2026-11-29'],
  ['2025-12-29', 'week 2026-W01', '2026-01-04'],
  ['2027-01-03', 'week 2026-W53', '2027-01-03'],
  ['2027-01-04', 'week 2027-W01', '2027-01-10'],
  ['1970-01-01', 'week 1970-W01', '1970-01-04'],
  ['1969-12-28', 'week 1969-W52', '1969-12-28'],
])('%s lies in %s, whose Sunday is %s', (date, name, sunday) => {
  expect([week.nameOf(day(date)), week.startOf(day(date))]).toEqual([name, day(sunday)]);
});

test('weeks, months and years follow one another without gaps', () => {
  for (const period of [week, weekFrom('monday'), month, yearFrom('march')]) {
    let last = period.indexOf(day('1999-06-15'));
    let name = period.nameOf(day('1999-06-15'));
    for (let at = day('1999-06-16'); at < day('2009-06-16'); at += 1) {
      const index = period.indexOf(at);
      const follows = index - last === (period.nameOf(at) === name ? 0 : 1);
      if (!follows || period.indexOf(period.startOf(at)) !== index) expect.fail(`${period.word} of day ${at}`);
      [last, name] = [index, period.nameOf(at)];
    }
  }
});

test('months and years', () => {
  expect([month.nameOf(day('2028-02-29')), month.startOf(day('2028-02-29'))]).toEqual([
    'month 2028-02',
    day('2028-02-01'),
  ]);
  const year = yearFrom('december');
  expect([year.nameOf(day('2028-02-29')), year.startOf(day('2028-02-29'))]).toEqual(['year 2028', day('2028-12-01')]);
});

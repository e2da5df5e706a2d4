/** Days, weeks, months and years as people in one time zone count them. A day is a number: 0 = 1970-01-01. */
import { months, weekdays, type Month, type Weekday } from '../../../schema/domain/retention.ts';

const DAY_MS = 86_400_000;
/** 1970-01-01 was a Thursday; weeks begin on Monday. */
const weekdayOf = (day: number): number => (((day + 3) % 7) + 7) % 7;
const civil = (day: number): Date => new Date(day * DAY_MS);
const twoDigits = (value: number): string => String(value).padStart(2, '0');

/** The calendar day of an instant (ms since 1970). Never by dividing by 24 h: days have 23 to 25 hours. */
export function createDayOf(timeZone: string): (instantMs: number) => number {
  const format = new Intl.DateTimeFormat('en-US', {
    timeZone,
    calendar: 'gregory',
    numberingSystem: 'latn',
    year: 'numeric',
    month: 'numeric',
    day: 'numeric',
  });
  return (instantMs) => {
    const parts = format.formatToParts(instantMs);
    const of = (type: string): number => Number(parts.find((part) => part.type === type)!.value);
    return Date.UTC(of('year'), of('month') - 1, of('day')) / DAY_MS;
  };
}

/** Consecutive whole numbers for consecutive periods, their names, and where in one the search for its restore point starts. */
export type Period = {
  word: 'weekly' | 'monthly' | 'yearly';
  indexOf: (day: number) => number;
  nameOf: (day: number) => string;
  /** First day, in the period that `day` lies in, from which a restore point stands for it. */
  startOf: (day: number) => number;
};

export const weekFrom = (weekday: Weekday): Period => ({
  word: 'weekly',
  indexOf: (day) => Math.floor((day + 3) / 7),
  nameOf: (day) => `week ${weekName(day)}`,
  startOf: (day) => day - weekdayOf(day) + weekdays.indexOf(weekday),
});

/** ISO 8601: a week belongs to the year its Thursday is in. */
function weekName(day: number): string {
  const thursday = day - weekdayOf(day) + 3;
  const year = civil(thursday).getUTCFullYear();
  const first = Date.UTC(year, 0, 1) / DAY_MS;
  return `${year}-W${twoDigits(Math.floor((thursday - first) / 7) + 1)}`;
}

export const month: Period = {
  word: 'monthly',
  indexOf: (day) => civil(day).getUTCFullYear() * 12 + civil(day).getUTCMonth(),
  nameOf: (day) => `month ${civil(day).getUTCFullYear()}-${twoDigits(civil(day).getUTCMonth() + 1)}`,
  startOf: (day) => day - civil(day).getUTCDate() + 1,
};

export const yearFrom = (first: Month): Period => ({
  word: 'yearly',
  indexOf: (day) => civil(day).getUTCFullYear(),
  nameOf: (day) => `year ${civil(day).getUTCFullYear()}`,
  startOf: (day) => Date.UTC(civil(day).getUTCFullYear(), months.indexOf(first), 1) / DAY_MS,
});

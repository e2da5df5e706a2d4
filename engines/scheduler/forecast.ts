/** When a repository will be full, from how full it was, and whether its owner is to be told. Pure. */
import { formatBytes } from '../../schema/domain/figures.ts';
import type { AlarmConfig } from '../../schema/domain/configuration.ts';
import type { Finding } from '../../schema/domain/states.ts';

/** `day`: "2026-11-25". */
export type FreeOnDay = { day: string; freeBytes: number; totalBytes: number };

/** A change of two days may be anything. */
const FEWEST_DAYS = 4;
/** What was before says little of what will be. */
export const FORECAST_DAYS = 30;
const DAY_MS = 86_400_000;

/**
 * Days until nothing is free, from the last day on; null: not filling up, or too few days are known. The median of the
 * slopes between all days: a night's collection, or a terabyte of other people's files, is one slope among many.
 */
export function daysUntilFull(history: readonly FreeOnDay[]): number | null {
  const days = recentOf(history).map(({ day, freeBytes }) => ({ at: Date.parse(day) / DAY_MS, freeBytes }));
  const last = days.at(-1);
  if (!last || last.at - days[0]!.at < FEWEST_DAYS - 1 || days.length < FEWEST_DAYS) return null;
  const slopes = days.flatMap((a, index) =>
    days.slice(index + 1).map((b) => (b.freeBytes - a.freeBytes) / (b.at - a.at)),
  );
  const perDay = medianOf(slopes);
  return perDay >= 0 ? null : Math.max(0, Math.floor(last.freeBytes / -perDay));
}

/** The run of days before which the disk had another size: a larger one is no trend. */
function recentOf(history: readonly FreeOnDay[]): FreeOnDay[] {
  const sorted = [...history].sort((a, b) => (a.day < b.day ? -1 : 1));
  const last = sorted.at(-1);
  if (!last) return [];
  const since = Date.parse(last.day) - FORECAST_DAYS * DAY_MS;
  const changedAt = sorted.findLastIndex(
    ({ totalBytes }) => Math.abs(totalBytes - last.totalBytes) > last.totalBytes / 20,
  );
  return sorted.slice(changedAt + 1).filter(({ day }) => Date.parse(day) >= since);
}

function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

export type AlarmPicture = {
  repositoryId: string;
  alarms: AlarmConfig | undefined;
  space: { freeBytes: number; totalBytes: number } | null;
  daysUntilFull: number | null;
};

/** Warnings for people; none when all is well, or nothing is known. */
export function alarmsOf({ repositoryId, alarms, space, daysUntilFull: days }: AlarmPicture): Finding[] {
  if (!alarms || !space || space.totalBytes === 0) return [];
  const warning = (message: string): Finding => ({
    level: 'warning',
    code: 'REPOSITORY_FILLING',
    message: `repository ${repositoryId} ${message}`,
  });
  const percent = (space.freeBytes / space.totalBytes) * 100;
  const free = `${formatBytes(space.freeBytes)} (${percent.toFixed(1)} %) free`;
  return [
    ...(percent < alarms.freePercent ? [warning(`has ${free}, less than ${alarms.freePercent} %`)] : []),
    ...(days !== null && days < alarms.daysUntilFull
      ? [warning(`will be full in ${days === 1 ? '1 day' : `${days} days`} at the present rate (${free})`)]
      : []),
  ];
}

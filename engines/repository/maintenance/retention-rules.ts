/**
 * The rules of retention, each by itself: which restore points it keeps, and why. A point stays when one of them keeps
 * it. Two properties follow from their forms, and are tested: a rule with a higher number keeps at least the same, and
 * what a rule keeps it keeps again once the others are gone.
 */
import type { RetentionPoint, RetentionPolicy } from '../../../schema/domain/retention.ts';
import { month, weekFrom, yearFrom, type Period } from './calendar.ts';

/** `day`: calendar day of its start. `agesFrom`: the day from which its age counts, never before that of an earlier one. */
export type DatedPoint = { point: RetentionPoint; day: number; agesFrom: number };
/** Points newest first, to the reasons for which they stay. */
export type Rule = (points: readonly DatedPoint[], keep: (point: DatedPoint, reason: string) => void) => void;

const isGood = ({ point }: DatedPoint): boolean => point.state === 'good';
const stateText = ({ point }: DatedPoint): string => (point.state === 'good' ? '' : ` (${point.state}: not counted)`);

/** What a person, or a lock, said. */
export const flags =
  (nowMs: number): Rule =>
  (points, keep) => {
    for (const dated of points) {
      const { keep: kept, hold, lockedUntil } = dated.point;
      if (kept) keep(dated, 'marked to be kept');
      if (hold !== null) keep(dated, `held: ${hold}`);
      if (lockedUntil !== null && !(Date.parse(lockedUntil) <= nowMs)) keep(dated, `locked until ${lockedUntil}`);
    }
  };

/** What came after the newest good one is not replaced by anything yet. */
export const untilNewerGood: Rule = (points, keep) => {
  for (const dated of points) {
    if (isGood(dated)) return;
    keep(dated, 'no newer good one is sealed');
  }
};

/**
 * `minimum` is at least 1: the newest good one is what a restore takes. Suspect and damaged ones may be what is left of
 * a VM: without enough good ones nothing goes.
 */
export const floor =
  (minimum: number): Rule =>
  (points, keep) => {
    const good = points.filter(isGood);
    if (good.length < minimum)
      for (const dated of points) keep(dated, `only ${good.length} good of at least ${minimum} are there`);
    else
      for (const dated of good.slice(0, minimum))
        keep(dated, minimum === 1 ? 'the newest good one' : `one of the ${minimum} newest good ones`);
  };

export const newest =
  (count: number): Rule =>
  (points, keep) => {
    let counted = 0;
    for (const dated of points) {
      if (counted === count) return;
      keep(dated, `among the newest ${count}${stateText(dated)}`);
      if (isGood(dated)) counted += 1;
    }
  };

export const daysText = (days: number): string => (days === 1 ? '1 day' : `${days} days`);

export const recentDays =
  (days: number, today: number): Rule =>
  (points, keep) => {
    for (const dated of points) if (today - dated.agesFrom <= days) keep(dated, `not older than ${daysText(days)}`);
  };

const stateOrder = { good: 0, suspect: 1, damaged: 2 } as const;

/** The one that stands for a period: of its best state, the first from the period's start day on, else the last before. */
function representative(points: readonly DatedPoint[], period: Period): DatedPoint {
  const best = Math.min(...points.map(({ point }) => stateOrder[point.state]));
  // Oldest first.
  const among = points.filter(({ point }) => stateOrder[point.state] === best).toReversed();
  return among.find(({ day }) => day >= period.startOf(day)) ?? among.at(-1)!;
}

function byPeriod(points: readonly DatedPoint[], period: Period): [number, DatedPoint][] {
  const groups = new Map<number, DatedPoint[]>();
  for (const dated of points) {
    const index = period.indexOf(dated.day);
    const group = groups.get(index);
    if (group) group.push(dated);
    else groups.set(index, [dated]);
  }
  return [...groups]
    .map(([index, group]): [number, DatedPoint] => [index, representative(group, period)])
    .sort(([a], [b]) => b - a);
}

/** The newest `count` periods that have a good one: idle weeks cost nothing. */
export const newestPeriods =
  (count: number, period: Period): Rule =>
  (points, keep) => {
    let counted = 0;
    for (const [, dated] of byPeriod(points, period)) {
      if (counted === count) return;
      keep(dated, `${period.word} of ${period.nameOf(dated.day)}${stateText(dated)}`);
      if (isGood(dated)) counted += 1;
    }
  };

/** The last `count` periods of the calendar, this one among them: for a VM of which no new ones come. */
export const lastPeriods =
  (count: number, period: Period, today: number): Rule =>
  (points, keep) => {
    for (const [index, dated] of byPeriod(points, period))
      if (period.indexOf(today) - index < count) keep(dated, `${period.word} of ${period.nameOf(dated.day)}`);
  };

export function periodsOf({ weekly, monthly, yearly }: RetentionPolicy): { count: number; period: Period }[] {
  return [
    ...(weekly ? [{ count: weekly.keep, period: weekFrom(weekly.weekday) }] : []),
    ...(monthly ? [{ count: monthly.keep, period: month }] : []),
    ...(yearly ? [{ count: yearly.keep, period: yearFrom(yearly.month) }] : []),
  ];
}

/** Which restore points of a lineage stay and which go (invariant 10). Pure: removing is somebody else's. */
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type {
  RetentionDecision,
  RetentionPoint,
  RetentionPolicy,
  RetentionQuestion,
} from '../../../schema/domain/retention.ts';
import { takenMs } from '../../../schema/domain/taken-time.ts';
import { createDayOf } from './calendar.ts';
import { AGREEMENT_MS, DAY_MS } from './repository-time.ts';
import {
  daysText,
  flags,
  floor,
  lastPeriods,
  newest,
  newestPeriods,
  periodsOf,
  recentDays,
  untilNewerGood,
  type DatedPoint,
  type Rule,
} from './retention-rules.ts';

/**
 * Newest first, a decision for every point. In doubt everything stays: no policy, dates that cannot be right. RangeError
 * for a time zone that is not one.
 */
export function decideRetention(question: RetentionQuestion): RetentionDecision[] {
  const { points, policy, now } = question;
  const doubt = doubtOfDates(question);
  if (policy === null || doubt !== null) {
    const reasons = [doubt === null ? NO_POLICY : `nothing is removed: ${doubt.message}`];
    return newestFirst(points).map(({ restorePointId }) => ({ restorePointId, stays: true, reasons }));
  }
  const dayOf = createDayOf(policy.timeZone);
  const dated = withDays(newestFirst(points), dayOf);
  const today = dayOf(Date.parse(now));
  const gone = isGone(question, policy, dated, today, dayOf);
  const rules = gone ? rulesOfGoneVm(policy, today) : rulesOf(policy, today);
  const why = reasonsOf(dated, [flags(Date.parse(now)), ...rules]);
  const goes = gone ? `the VM has been gone for more than ${daysText(policy.deletedVmDays!)}` : whyItGoes(policy);
  return dated.map((each) => {
    const reasons = why.get(each);
    return { restorePointId: each.point.restorePointId, stays: reasons !== undefined, reasons: reasons ?? [goes] };
  });
}

/** "stays: among the newest 7; weekly of week 2026-W47" */
export const describeDecision = ({ stays, reasons }: RetentionDecision): string =>
  `${stays ? 'stays' : 'goes'}: ${reasons.join('; ')}`;

const NO_POLICY = 'no job of the site says how long it stays';
const minimumOf = ({ minimum }: RetentionPolicy): number => Math.max(1, minimum);

/**
 * Why nothing of the lineage can be removed, whatever its rules; null: it can, or it has none. One clock that was wrong
 * is no reason: see `takenMs`. Nor is one that differs by so little that clocks count as agreeing.
 */
export function doubtOfDates({ points, policy, now, vmGoneSince }: RetentionQuestion): Reason | null {
  if (policy === null) return null;
  const doubt = (message: string): Reason => ({ code: 'RESTORE_POINT_DATE', message });
  const times = points.flatMap((point) => [point.takenAt, point.sealedAt]);
  const unreadable = [now, ...times, ...(vmGoneSince === null ? [] : [vmGoneSince])].find((time) =>
    Number.isNaN(Date.parse(time)),
  );
  if (unreadable !== undefined) return doubt(`${JSON.stringify(unreadable)} is not a time`);
  const ahead = newestFirst(points.filter((point) => takenMs(point) - Date.parse(now) >= AGREEMENT_MS));
  const [last] = ahead;
  if (!last) return null;
  const others = ahead.length === 1 ? '' : `, and ${ahead.length - 1} more after that time`;
  const date = new Date(takenMs(last)).toISOString();
  return doubt(`it is ${now}, and restore point ${last.restorePointId} is dated ${date}${others}`);
}

/** As they were sealed: sessions of a lineage come one after another, and no clock that is set changes that order. */
function newestFirst(points: readonly RetentionPoint[]): RetentionPoint[] {
  const order = (a: RetentionPoint, b: RetentionPoint): number =>
    Date.parse(b.sealedAt) - Date.parse(a.sealedAt) || (a.restorePointId < b.restorePointId ? -1 : 1);
  return [...points].sort(order);
}

/** A point whose clocks were behind is no older than those that were sealed before it. */
function withDays(points: readonly RetentionPoint[], dayOf: (instantMs: number) => number): DatedPoint[] {
  const dated: DatedPoint[] = [];
  let agesFrom = -Infinity;
  for (const point of points.toReversed()) {
    const day = dayOf(startedMs(point));
    agesFrom = Math.max(agesFrom, day);
    dated.push({ point, day, agesFrom });
  }
  return dated.toReversed();
}

/**
 * A point belongs to the day its session was due, also when it was taken after midnight. A due time that cannot be
 * that of this point (of a clock set wrong, or of a schedule that was caught up long after) does not make it older.
 */
function startedMs(point: RetentionPoint): number {
  const [startMs, nominalMs] = [takenMs(point), Date.parse(point.nominalTime)];
  return nominalMs <= startMs && startMs - nominalMs <= DAY_MS ? nominalMs : startMs;
}

/** Counted from the last day that had anything to do with the VM. */
function isGone(
  { vmGoneSince }: RetentionQuestion,
  { deletedVmDays }: RetentionPolicy,
  dated: readonly DatedPoint[],
  today: number,
  dayOf: (instantMs: number) => number,
): boolean {
  if (vmGoneSince === null || deletedVmDays === null) return false;
  const last = dated.reduce((latest, { day }) => Math.max(latest, day), dayOf(Date.parse(vmGoneSince)));
  return today - last > deletedVmDays;
}

function rulesOf(policy: RetentionPolicy, today: number): Rule[] {
  return [
    untilNewerGood,
    floor(minimumOf(policy)),
    ...(policy.count === null ? [] : [newest(policy.count)]),
    ...(policy.days === null ? [] : [recentDays(policy.days, today)]),
    ...periodsOf(policy).map(({ count, period }) => newestPeriods(count, period)),
  ];
}

/** Its own period takes the place of the floor: this is the one way in which a lineage ends. */
const rulesOfGoneVm = (policy: RetentionPolicy, today: number): Rule[] =>
  periodsOf(policy).map(({ count, period }) => lastPeriods(count, period, today));

function reasonsOf(dated: readonly DatedPoint[], rules: readonly Rule[]): Map<DatedPoint, string[]> {
  const why = new Map<DatedPoint, string[]>();
  for (const rule of rules)
    rule(dated, (each, reason) => {
      const reasons = why.get(each);
      if (reasons) reasons.push(reason);
      else why.set(each, [reason]);
    });
  return why;
}

/** "older than 14 days, not among the newest 7 and not the one kept of a week, month or year". */
function whyItGoes(policy: RetentionPolicy): string {
  const words = periodsOf(policy).map(({ count, period }) => `${count} ${period.word}`);
  const parts = [
    ...(policy.days === null ? [] : [`older than ${daysText(policy.days)}`]),
    ...(policy.count === null ? [] : [`not among the newest ${policy.count}`]),
    ...(words.length === 0 ? [] : [`not one of the ${joined(words, 'or')} ones`]),
    `not needed for the minimum of ${minimumOf(policy)} good`,
  ];
  return joined(parts, 'and');
}

const joined = (parts: readonly string[], word: string): string =>
  parts.length < 2 ? parts.join('') : `${parts.slice(0, -1).join(', ')} ${word} ${parts.at(-1)}`;

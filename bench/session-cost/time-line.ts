/** Where the time of a session went, of the timestamps in the histories of its workflows: each moment belongs to one share. */
import type { temporal } from '@temporalio/proto';
import type { History } from '../backup/product.ts';

type Event = temporal.api.history.v1.IHistoryEvent;
type Timestamp = NonNullable<Event['eventTime']>;

/** In this order: a moment at which an activity is at work is the activity's, whatever else goes on. */
export const shares = [
  'activities at work',
  'activities on their way to a worker',
  'workflow code at work',
  'workflow tasks on their way to a worker',
  'between them',
] as const;
export type Share = (typeof shares)[number];

/** Milliseconds since 1970. */
export type Span = { share: Share; what: string; fromMs: number; untilMs: number };

const msOf = ({ seconds, nanos }: Timestamp): number => Number(seconds) * 1000 + (nanos ?? 0) / 1e6;
const at = (event: Event): number => msOf(event.eventTime!);

/** What one workflow waited for, piece by piece; pieces overlap. */
export function spansOf({ events = [] }: History): Span[] {
  const byId = new Map((events ?? []).map((event) => [String(event.eventId), event]));
  return (events ?? []).flatMap((event): Span[] => {
    const task = event.workflowTaskCompletedEventAttributes;
    const done = event.activityTaskCompletedEventAttributes;
    if (!task && !done) return [];
    const scheduled = byId.get(String((task ?? done)!.scheduledEventId))!;
    const started = byId.get(String((task ?? done)!.startedEventId))!;
    const what = scheduled.activityTaskScheduledEventAttributes?.activityType?.name ?? 'workflow task';
    const [waits, works] = done ? [shares[1], shares[0]] : [shares[3], shares[2]];
    return [
      { share: waits, what, fromMs: at(scheduled), untilMs: at(started) },
      { share: works, what, fromMs: at(started), untilMs: at(event) },
    ];
  });
}

/** From the first event of any to the last. */
export function boundsOf(histories: readonly History[]): { fromMs: number; untilMs: number } {
  const all = histories.flatMap(({ events }) => events ?? []).map(at);
  return { fromMs: Math.min(...all), untilMs: Math.max(...all) };
}

/** Milliseconds of each share; they add up to the whole. */
export function sharesOf(histories: readonly History[]): Map<Share, number> {
  const { fromMs, untilMs } = boundsOf(histories);
  const spans = histories.flatMap(spansOf);
  const edges = [...new Set([fromMs, untilMs, ...spans.flatMap((span) => [span.fromMs, span.untilMs])])].toSorted(
    (a, b) => a - b,
  );
  const sums = new Map<Share, number>(shares.map((share) => [share, 0]));
  for (const [i, edge] of edges.slice(0, -1).entries()) {
    const next = edges[i + 1]!;
    const here = spans.filter((span) => span.fromMs <= edge && span.untilMs >= next).map((span) => span.share);
    const share = shares.find((one) => here.includes(one)) ?? 'between them';
    sums.set(share, sums.get(share)! + next - edge);
  }
  return sums;
}

/**
 * The way out when both clocks were wrong at once, and repository time with them: a person sets it back to the present. No
 * lock is shortened by that: its end is a date, and an earlier present is farther from it. What was removed meanwhile is
 * gone; what lies in the trash begins its grace anew.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { ClockReset } from '../../../schema/domain/maintenance.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { DAY_MS } from './repository-time.ts';

type ResetParts = Pick<MaintenanceParts, 'time' | 'state' | 'seams'>;
const isoOf = (ms: number): string => new Date(ms).toISOString();

/**
 * `today`: "2026-11-30", by whoever asks: the third witness, without whom clocks that stand in the past would be believed.
 * Not while a collection runs. CLOCK_IN_DOUBT when the clocks do not agree with one another, or with that day; BAD_REQUEST
 * when it is no day.
 */
export async function resetClock({ time, state, seams }: ResetParts, today: string): Promise<ClockReset> {
  const noonMs = noonOf(today);
  const { nowMs, doubt, aheadOfMs = null } = await time.read();
  if (doubt !== null && aheadOfMs === null)
    throw new TidemarkError('CLOCK_IN_DOUBT', `repository time is not set back: ${doubt.message}`);
  const clocksMs = aheadOfMs ?? nowMs!;
  // Half a day for the noon, a day for the time zone of whoever says so.
  if (!(Math.abs(clocksMs - noonMs) < 1.5 * DAY_MS))
    throw new TidemarkError('CLOCK_IN_DOUBT', `the clocks show ${isoOf(clocksMs)}, and not ${today}`, { today });
  const from = isoOf(nowMs!);
  if (aheadOfMs === null) return { from, to: from, reset: false };
  await state.setBack(aheadOfMs);
  time.setBack(aheadOfMs);
  const to = isoOf(aheadOfMs);
  seams.log.warn('repository time was set back by order', { from, to, today });
  return { from, to, reset: true };
}

function noonOf(today: string): number {
  const noonMs = /^\d{4}-\d{2}-\d{2}$/.test(today) ? Date.parse(`${today}T12:00:00.000Z`) : Number.NaN;
  if (!Number.isNaN(noonMs)) return noonMs;
  throw new TidemarkError('BAD_REQUEST', `expected a day like 2026-11-30, found ${JSON.stringify(today)}`, { today });
}

/**
 * Repository time: what locks and the grace of the trash are counted by. It never goes back by itself, and goes on only
 * when the clock of this host and another source agree; no clock that is set forward ends anything early.
 */
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { Clock, Log } from '../../../schema/domain/seams.ts';

export const DAY_MS = 86_400_000;
/** Clocks that differ by less agree. */
export const AGREEMENT_MS = DAY_MS;

/** Milliseconds since the epoch, of a clock that is not this host's; null where there is none, or none answers. */
export type ServerTime = () => Promise<number | null>;

/**
 * `nowMs`: null when it was never known. `doubt`: why it may be later by now; then nothing is to end. `aheadOfMs`: what
 * both clocks show, where repository time is ahead of them; else null.
 */
export type TimeReading = { nowMs: number | null; doubt: Reason | null; aheadOfMs?: number | null };

export type RepositoryTime = {
  /** As it was read last. */
  lastMs(): number | null;
  read(): Promise<TimeReading>;
  /** From here on it is that, ms; whoever says so has made it durable. */
  setBack(toMs: number): void;
};

type Sources = { clock: Pick<Clock, 'now'>; serverTime: ServerTime; log: Log };

/** `keptMs`: as it was kept by the process before. */
export function createRepositoryTime(keptMs: number | null, { clock, serverTime, log }: Sources): RepositoryTime {
  let lastMs = keptMs;
  return {
    lastMs: () => lastMs,
    read: async () => {
      const otherMs = await serverTime().catch((error: unknown) => {
        log.warn('the other clock does not answer', { error: String(error) });
        return null;
      });
      const hostMs = clock.now();
      const doubt = doubtOf(hostMs, otherMs, lastMs);
      // The earlier of the two: never ahead of either.
      if (doubt === null) lastMs = Math.max(lastMs ?? -Infinity, Math.min(hostMs, otherMs!));
      return { nowMs: lastMs, doubt, aheadOfMs: doubt && aheadOf(hostMs, otherMs, lastMs) };
    },
    setBack: (toMs) => void (lastMs = toMs),
  };
}

const LATEST_MS = 8.64e15;
const text = (ms: number): string => (Math.abs(ms) <= LATEST_MS ? new Date(ms).toISOString() : String(ms));

function doubtOf(hostMs: number, otherMs: number | null, lastMs: number | null): Reason | null {
  const doubt = (message: string): Reason => ({ code: 'CLOCK_IN_DOUBT', message });
  if (otherMs === null) return doubt('there is no second clock to compare the clock of this host with');
  // Not "more than": what is no number differs from everything.
  if (!(Math.abs(hostMs - otherMs) < AGREEMENT_MS))
    return doubt(`the clock of this host shows ${text(hostMs)}, the other clock ${text(otherMs)}`);
  const clocksMs = Math.min(hostMs, otherMs);
  if (lastMs === null || lastMs - clocksMs < AGREEMENT_MS) return null;
  return doubt(
    `repository time is ${text(lastMs)}, ${spanText(lastMs - clocksMs)} ahead of the clocks, which show ` +
      `${text(clocksMs)}: nothing is removed until then, unless \`tidemark repository reset-clock\` sets it back`,
  );
}

/** What clocks that agree show, when it is less than it was before. */
function aheadOf(hostMs: number, otherMs: number | null, lastMs: number | null): number | null {
  if (otherMs === null || lastMs === null || !(Math.abs(hostMs - otherMs) < AGREEMENT_MS)) return null;
  const clocksMs = Math.min(hostMs, otherMs);
  return lastMs - clocksMs < AGREEMENT_MS ? null : clocksMs;
}

const YEAR_DAYS = 365.25;
function spanText(ms: number): string {
  const days = Math.floor(ms / DAY_MS);
  if (days < 2 * YEAR_DAYS) return days === 1 ? '1 day' : `${days} days`;
  return `${Math.floor(days / YEAR_DAYS)} years`;
}

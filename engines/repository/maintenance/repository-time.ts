/**
 * Repository time: what locks and the grace of the trash are counted by. It never goes back, and goes on only when the
 * clock of this host and another source agree; no clock that is set forward ends anything early.
 */
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { Clock, Log } from '../../../schema/domain/seams.ts';

export const DAY_MS = 86_400_000;
/** Clocks that differ by less agree. */
const AGREEMENT_MS = DAY_MS;

/** Milliseconds since the epoch, of a clock that is not this host's; null where there is none, or none answers. */
export type ServerTime = () => Promise<number | null>;

/** `nowMs`: null when it was never known. `doubt`: why it may be later by now; then nothing is to end. */
export type TimeReading = { nowMs: number | null; doubt: Reason | null };

export type RepositoryTime = {
  /** As it was read last. */
  lastMs(): number | null;
  read(): Promise<TimeReading>;
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
      return { nowMs: lastMs, doubt };
    },
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
  if (lastMs !== null && !(lastMs - Math.min(hostMs, otherMs) < AGREEMENT_MS))
    return doubt(`the clocks show ${text(hostMs)}, but it was ${text(lastMs)} before`);
  return null;
}

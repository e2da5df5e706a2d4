/** Background work of a process, again and again until it ends. */
import { messageOf } from '../../schema/domain/errors.ts';
import type { Seams } from '../../schema/domain/seams.ts';

/** Runs `work`, then waits; what it throws is logged. Resolves when the signal aborts and no run is in work. */
export async function periodically(
  of: { what: string; intervalMs: number; seams: Pick<Seams, 'clock' | 'log'>; signal: AbortSignal },
  work: () => Promise<unknown>,
): Promise<void> {
  const { what, intervalMs, seams, signal } = of;
  while (!signal.aborted) {
    try {
      await work();
    } catch (error) {
      seams.log.warn(`${what} failed and is tried again`, { error: messageOf(error) });
    }
    await seams.clock.sleep(intervalMs, signal).catch(() => undefined);
  }
}

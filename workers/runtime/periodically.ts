/** Background work of a process, again and again until it ends. */
import { messageOf } from '../../schema/domain/errors.ts';
import type { Seams } from '../../schema/domain/seams.ts';

/**
 * Runs `work`, then waits; what it throws is logged, loudly once for a row of failures. Resolves when the signal has
 * aborted and no run is in work.
 */
export async function periodically(
  of: { what: string; intervalMs: number; seams: Pick<Seams, 'clock' | 'log'>; signal: AbortSignal },
  work: () => Promise<unknown>,
): Promise<void> {
  const { what, intervalMs, seams, signal } = of;
  let isFailing = false;
  while (!signal.aborted) {
    try {
      await work();
      isFailing = false;
    } catch (error) {
      seams.log[isFailing ? 'debug' : 'warn'](`${what} failed and is tried again`, { error: messageOf(error) });
      isFailing = true;
    }
    await seams.clock.sleep(intervalMs, signal).catch(() => undefined);
  }
}

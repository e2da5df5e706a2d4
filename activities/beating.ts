/** Heartbeats around work that does not tell how far it is. */
import { Context } from '@temporalio/activity';

/** Well below the shortest heartbeat timeout (10 s, createCheckpoint). */
const BEAT_MS = 3000;

/** Says a heartbeat at once and each 3 s until the work ends. The work itself is not interrupted. */
export async function beating<T>(work: () => Promise<T>): Promise<T> {
  const context = Context.current();
  context.heartbeat();
  const timer = setInterval(() => context.heartbeat(), BEAT_MS);
  try {
    return await work();
  } finally {
    clearInterval(timer);
  }
}

/** As `beating`, but does not wait for work that cannot be interrupted once the activity is cancelled: it goes on alone. */
export async function beatingUntilCancelled<T>(work: () => Promise<T>): Promise<T> {
  const { cancelled } = Context.current();
  return await beating(async () => {
    const done = work();
    // When the cancellation wins, nobody waits for what the work comes to.
    done.catch(() => undefined);
    return await Promise.race([done, cancelled]);
  });
}

/** Holds reading and writing to a rate, for work that must leave room to others. */
import type { Clock } from '../../../schema/domain/seams.ts';
import { aroundCalls } from './around-calls.ts';
import type { Storage } from './storage.ts';

/** Bytes read or written in one call count before it begins. What lanes append is waited for at their next sync. */
export function withThrottle(storage: Storage, options: { bytesPerSecond: number; clock: Clock }): Storage {
  const { bytesPerSecond, clock } = options;
  let freeAtMs = -Infinity;
  /** Milliseconds until it is this call's turn. */
  const reserve = (bytes: number): number => {
    const nowMs = clock.monotonic();
    const startMs = Math.max(nowMs, freeAtMs);
    freeAtMs = startMs + (bytes / bytesPerSecond) * 1000;
    return startMs - nowMs;
  };
  return aroundCalls(storage, {
    async: async ({ bytes, operation }, work) => {
      const waitMs = bytes > 0 || operation === 'sync' || operation === 'finish' ? reserve(bytes) : 0;
      if (waitMs > 0) await clock.sleep(waitMs);
      return work();
    },
    sync: ({ bytes }, work) => {
      reserve(bytes);
      return work();
    },
  });
}

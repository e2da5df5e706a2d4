/** Counts calls, bytes and time: `storage_calls`, `storage_bytes`, `storage_ms`; with half, operation and outcome. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { Clock, Meter } from '../../../schema/domain/seams.ts';
import { aroundCalls, type StorageCall } from './around-calls.ts';
import type { Storage } from './storage.ts';

export function withMetrics(storage: Storage, { clock, meter }: { clock: Clock; meter: Meter }): Storage {
  const count = ({ half, operation, bytes }: StorageCall, sinceMs: number, outcome: string): void => {
    const labels = { half, operation, outcome };
    meter.add('storage_calls', 1, labels);
    meter.add('storage_ms', clock.monotonic() - sinceMs, labels);
    if (outcome === 'ok' && bytes > 0) meter.add('storage_bytes', bytes, labels);
  };
  const outcomeOf = (error: unknown): string => errorCodeOf(error) ?? 'error';
  return aroundCalls(storage, {
    async: async (call, work) => {
      const sinceMs = clock.monotonic();
      try {
        const result = await work();
        count(call, sinceMs, 'ok');
        return result;
      } catch (error) {
        count(call, sinceMs, outcomeOf(error));
        throw error;
      }
    },
    sync: (call, work) => {
      const sinceMs = clock.monotonic();
      try {
        const result = work();
        count(call, sinceMs, 'ok');
        return result;
      } catch (error) {
        count(call, sinceMs, outcomeOf(error));
        throw error;
      }
    },
  });
}

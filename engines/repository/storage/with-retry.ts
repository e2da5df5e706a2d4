/** Says a call again when its failure may pass. Never a sync: what a failed one lost is lost. Never in a lane's thread. */
import type { Clock } from '../../../schema/domain/seams.ts';
import { type Around, aroundCalls } from './around-calls.ts';
import { isPassing } from './files.ts';
import type { Storage } from './storage.ts';

/** `delayMs`: before the second try; doubled before each further one. */
export type RetryOptions = { clock: Clock; tries?: number; delayMs?: number };

const FINAL = new Set(['sync', 'finish']);

export function withRetry(storage: Storage, { clock, tries = 4, delayMs = 50 }: RetryOptions): Storage {
  /** `onRepeat`: before a call is said again. */
  const repeat = async <T>(work: () => Promise<T>, onRepeat?: () => void): Promise<T> => {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await work();
      } catch (error) {
        if (attempt >= tries || !isPassing(error)) throw error;
      }
      await clock.sleep(delayMs * 2 ** (attempt - 1));
      onRepeat?.();
    }
  };
  const around: Around = {
    async: ({ operation }, work) => (FINAL.has(operation) ? work() : repeat(work)),
    sync: (_, work) => work(),
  };
  const { staging, store } = aroundCalls(storage, around);
  const putIfAbsent =
    (half: Storage['staging'] | Storage['store']) =>
    async (name: string, text: string): Promise<boolean> => {
      let repeated = false;
      const isNew = await repeat(
        () => half.putIfAbsent(name, text),
        () => (repeated = true),
      );
      // The try that failed may have put it.
      return isNew || (repeated && (await repeat(() => half.readText(name, Buffer.byteLength(text)))) === text);
    };
  return {
    staging: { ...staging, putIfAbsent: putIfAbsent(storage.staging) },
    store: { ...store, putIfAbsent: putIfAbsent(storage.store) },
  };
}

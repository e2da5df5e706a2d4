/** Makes what a lane wrote durable while more comes. */

/** Windows written that no flush has begun for, before whoever writes has to wait for the one under way. */
const MOST_WAITING = 4;
/** A flush begins in the middle of a window, too: else a disk would have nothing to do until the first are written. */
const FLUSH_BYTES = 32 * 1024 * 1024;

export type FlushBehind = {
  wrote(lengthBytes: number): void;
  /** All of a window was written. Resolves when more may be; rejects with the failure of a flush, from then on always. */
  finished(window: number): Promise<void>;
  /** Every window finished is durable; rejects with the failure of what is not. */
  idle(): Promise<void>;
};

/**
 * One at a time, as long as something waits: the disk is never without work, and a slow one holds up whoever writes to it.
 * `onDurable`: after each that ends windows.
 */
export function createFlushBehind(flush: () => Promise<void>, onDurable: (windows: number[]) => void): FlushBehind {
  let waiting: number[] = [];
  let waitingBytes = 0;
  let flushing: Promise<void> | null = null;
  let hasFailed = false;

  const flushAll = async (): Promise<void> => {
    while (waiting.length > 0 || waitingBytes >= FLUSH_BYTES) {
      const windows = waiting;
      waiting = [];
      waitingBytes = 0;
      await flush();
      if (windows.length > 0) onDurable(windows);
    }
    flushing = null;
  };
  const begin = (): Promise<void> => {
    flushing ??= flushAll();
    // Told by the next call.
    flushing.catch(() => (hasFailed = true));
    return flushing;
  };

  return {
    wrote: (lengthBytes) => {
      waitingBytes += lengthBytes;
      if (waitingBytes >= FLUSH_BYTES) void begin().catch(() => undefined);
    },
    finished: async (window) => {
      waiting.push(window);
      const done = begin();
      if (hasFailed || waiting.length >= MOST_WAITING) await done;
    },
    idle: async () => {
      await flushing;
    },
  };
}

/** The seams' implementations for a process: system clock, JSON log on stderr, the system's randomness. */
import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { pino, type Logger } from 'pino';
import type { Clock, Log, LogFields, Meter, Random, Seams } from '../../schema/domain/seams.ts';

export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  sleep: async (durationMs, signal) => {
    try {
      await delay(durationMs, undefined, signal ? { signal } : {});
    } catch (error) {
      // Its own error only wraps the reason.
      signal?.throwIfAborted();
      throw error;
    }
  },
};

export const systemRandom: Random = { bytes: (count) => new Uint8Array(randomBytes(count)) };

/** Counts nothing yet: metrics get their exporter with the operations work. */
export const noMeter: Meter = { add: () => undefined };

const asLog = (logger: Logger): Log => ({
  debug: (message, fields) => logger.debug(fields ?? {}, message),
  info: (message, fields) => logger.info(fields ?? {}, message),
  warn: (message, fields) => logger.warn(fields ?? {}, message),
  error: (message, fields) => logger.error(fields ?? {}, message),
  child: (fields: LogFields) => asLog(logger.child(fields)),
});

/** One JSON object per line on stderr; level from TIDEMARK_LOG (default info). */
export const createLog = (name: string): Log =>
  asLog(pino({ name, level: process.env['TIDEMARK_LOG'] ?? 'info' }, pino.destination({ dest: 2, sync: true })));

export const createSeams = (name: string): Seams => ({
  clock: systemClock,
  log: createLog(name),
  random: systemRandom,
  meter: noMeter,
});

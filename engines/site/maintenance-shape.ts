/** A repository's `maintenance` and `alarms`: what is done to it by itself, and when its owner is warned. */
import { z } from 'zod';
import { duration, size, strict, textWhere, whole } from './shape-leaves.ts';

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;
/** Most backups are over by then, and nobody works yet. */
export const DEFAULT_MAINTENANCE_TIME = '03:30';

const verify = strict('a mapping with maxTime and maxBytes', {
  maxTime: duration(MINUTE_MS, DAY_MS, '1m to 24h').optional(),
  maxBytes: size(2 ** 20, 2 ** 50, '1MiB to 1PiB').optional(),
}).refine((value) => value.maxTime !== undefined || value.maxBytes !== undefined, {
  error: 'maxTime, maxBytes or both',
});

const shape = strict('a mapping with at or every, and verify; or false', {
  at: textWhere('a time of day from "00:00" to "23:59"', (text) => /^(?:[01]\d|2[0-3]):[0-5]\d$/.test(text)).optional(),
  every: duration(15 * MINUTE_MS, 30 * DAY_MS, '15m to 30d').optional(),
  verify: verify.prefault({ maxTime: '1h' }),
}).refine((value) => value.at === undefined || value.every === undefined, { error: 'either at or every, not both' });

/** Null: none, written as `false`. A key with nothing behind it is no answer. */
const noneOr = (value: unknown): unknown => (value === false ? null : (value ?? 'nothing'));
export const maintenance = z.preprocess(noneOr, shape.nullable()).prefault({});
export type MaintenanceText = z.output<typeof shape>;

export const alarms = strict('a mapping with freePercent and daysUntilFull', {
  freePercent: whole(0, 99).prefault(5),
  daysUntilFull: whole(0, 3650).prefault(14),
}).prefault({});

/** `networks` of the site, and `limits` of repositories and hosts: how fast transfers may be, and which way they take. */
import { parseNetwork, weekdays } from '../../schema/domain/networks.ts';
import { parseRate } from './measures.ts';
import type { z } from 'zod';
import { duration, flag, leaf, listOf, shortName, strict } from './shape-leaves.ts';

const MAX_RULES = 256;
const MINUTES_OF_DAY = 24 * 60;
/** Slower, a block of 4 MiB would be under way for over a minute. */
const LEAST_RATE = 64 * 1024;

export const rate = leaf('a rate of at least 64KiB/s, like 50MiB/s or 100Mbit/s', (value) => {
  const bytesPerSecond = parseRate(value);
  return bytesPerSecond !== null && bytesPerSecond >= LEAST_RATE ? bytesPerSecond : null;
});
const network = leaf('a network, like 10.1.0.0/16 or 2001:db8::/32, or one address', (value) =>
  typeof value === 'string' && parseNetwork(value) !== null ? value : null,
);

/** "24:00" is the end of a day, and so is "00:00" behind `to`. */
const minuteOfDay = leaf('a time of day from "00:00" to "24:00"', (value) => {
  const match = typeof value === 'string' ? /^(\d\d):([0-5]\d)$/.exec(value) : null;
  const minute = match ? Number(match[1]) * 60 + Number(match[2]) : Infinity;
  return minute <= MINUTES_OF_DAY ? minute : null;
});
const day = leaf(`a day: ${weekdays.join(', ')}`, (value) => weekdays.find((each) => each === value) ?? null);

const hours = strict('a mapping with days, from, to', {
  days: listOf('days', day, 7)
    .min(1, { error: 'at least one day' })
    .prefault([...weekdays]),
  from: minuteOfDay.prefault('00:00'),
  to: minuteOfDay.prefault('24:00'),
});

const rule = strict('a rule: name, from, to, rate and more', {
  name: shortName,
  from: network,
  to: network,
  rate,
  hours: listOf('hours', hours, 32).prefault([]),
  restores: flag.prefault(false),
  local: flag.prefault(false),
});

export const networks = strict('a mapping with preferred and throttle', {
  preferred: listOf('networks', network, MAX_RULES).prefault([]),
  throttle: listOf('rules', rule, MAX_RULES).prefault([]),
});

export const limits = strict('a mapping with read and write', { read: rate.optional(), write: rate.optional() });

/** Of a host or datastore, for the sake of what else lives there. */
export const brakeLimits = strict('a mapping with readRate, writeRate and latency', {
  readRate: rate.optional(),
  writeRate: rate.optional(),
  latency: duration(1, 60_000, '1ms to 60s').optional(),
});
export type BrakeText = z.output<typeof brakeLimits>;

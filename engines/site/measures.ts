/** Sizes and durations as people write them. Null: not one. */

const sizeUnits: Record<string, number> = {
  B: 1,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
  PiB: 2 ** 50,
};
const durationUnitsMs: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 };

/** "64MiB", "1.5 GiB" or a whole number of bytes, to bytes. */
export function parseSize(value: unknown): number | null {
  if (typeof value === 'number') return Number.isSafeInteger(value) && value >= 0 ? value : null;
  const match = typeof value === 'string' ? /^(\d{1,15}(?:\.\d{1,6})?) ?([KMGTP]iB|B)?$/.exec(value) : null;
  if (!match) return null;
  const bytes = Number(match[1]) * sizeUnits[match[2] ?? 'B']!;
  return Number.isSafeInteger(bytes) ? bytes : null;
}

/** "15m", "1h30m", "90s", to milliseconds. A number alone has no unit and is none. */
export function parseDuration(value: unknown): number | null {
  if (value === 0) return 0;
  if (typeof value !== 'string' || !/^(?:\d{1,9}(?:ms|[smhd]) ?)+$/.test(`${value} `)) return null;
  let durationMs = 0;
  for (const [, amount, unit] of value.matchAll(/(\d+)(ms|[smhd])/g))
    durationMs += Number(amount) * durationUnitsMs[unit!]!;
  return Number.isSafeInteger(durationMs) ? durationMs : null;
}

/** Network equipment counts bits, in thousands. */
const bitUnits: Record<string, number> = { kbit: 1000, Mbit: 1_000_000, Gbit: 1_000_000_000 };

/** "50MiB/s" or "100Mbit/s", to whole bytes per second. A number alone has no unit and is none. */
export function parseRate(value: unknown): number | null {
  const [, amount = '', unit = ''] =
    (typeof value === 'string' && /^(\d{1,9}(?:\.\d{1,6})?) ?([kMG]bit|[KMGT]iB|B)\/s$/.exec(value)) || [];
  const bits = bitUnits[unit];
  if (bits === undefined) return amount === '' ? null : parseSize(`${amount}${unit}`);
  return Math.floor((Number(amount) * bits) / 8);
}

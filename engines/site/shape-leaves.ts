/**
 * What the shape of site.yaml is made of. Each leaf's error says what is expected there, in words that follow
 * "expected"; that of a mapping lists its keys.
 */
import { z } from 'zod';
import { isShortName } from '../../schema/domain/ids.ts';
import { parseDuration, parseSize } from './measures.ts';

/** A mapping of these keys and no others; `what` is expected where it is none. */
export const strict = <S extends z.ZodRawShape>(what: string, shape: S) =>
  z.strictObject(shape, {
    error: (issue) => (issue.code === 'unrecognized_keys' ? Object.keys(shape).join(', ') : what),
  });

/** A leaf: what `parse` makes of the value, null being "not one". */
export const leaf = <T>(expected: string, parse: (value: unknown) => T | null) =>
  z.transform((value: unknown, context): T => {
    const parsed = parse(value);
    if (parsed !== null) return parsed;
    context.issues.push({ code: 'custom', message: expected, input: value });
    return z.NEVER;
  });

export const textWhere = (expected: string, holds: (text: string) => boolean) =>
  leaf(expected, (value) => (typeof value === 'string' && holds(value) ? value : null));

export const oneOf = <T extends string>(values: readonly T[]) =>
  leaf(`one of ${values.join(', ')}`, (value) => values.find((each) => each === value) ?? null);

export const whole = (from: number, to: number) =>
  leaf(`a whole number from ${from} to ${to}`, (value) =>
    Number.isSafeInteger(value) && (value as number) >= from && (value as number) <= to ? (value as number) : null,
  );

export const listOf = <T extends z.ZodType>(what: string, item: T, max: number) => {
  const error = `a list of at most ${max} ${what}`;
  return z.array(item, { error }).max(max, { error });
};

export const duration = (fromMs: number, toMs: number, words: string) =>
  leaf(`a duration from ${words}, like 90s, 15m or 1h30m`, (value) => {
    const durationMs = parseDuration(value);
    return durationMs !== null && durationMs >= fromMs && durationMs <= toMs ? durationMs : null;
  });

export const size = (from: number, to: number, words: string) =>
  leaf(`a size from ${words}, like 512KiB or 64GiB`, (value) => {
    const bytes = parseSize(value);
    return bytes !== null && bytes >= from && bytes <= to ? bytes : null;
  });

export const shortName = textWhere('a name: 1 to 32 of a-z, 0-9 and "-", no "-" at its ends', isShortName);
export const flag = leaf('true or false', (value) => (typeof value === 'boolean' ? value : null));

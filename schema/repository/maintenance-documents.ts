/** Checked JSON of what maintenance keeps: the state of the repository, and flags of its restore points (FORMAT.md). */
import { z } from 'zod';
import { TidemarkError } from '../domain/errors.ts';
import type { RestorePointId } from '../domain/ids.ts';
import { decodeChecked, encodeChecked } from './checked-json.ts';
import { isId128 } from './digest.ts';
import { FORMAT_VERSION, MAX_DOCUMENT_BYTES, MAX_LOCK_DAYS } from './limits.ts';

const format = z.literal(FORMAT_VERSION);
const epoch = z.int().nonnegative();
const time = z.string().refine((text) => text.length <= 32 && !Number.isNaN(Date.parse(text)), 'a time');

const state = z.object({
  format,
  epoch,
  repositoryTime: time.nullable(),
  settled: z.array(z.object({ epoch, at: time })).max(65_536),
});

/** Times: ISO 8601, UTC. */
export type StateDocument = {
  format: number;
  /** Of the last collection that began; what is moved to the trash from then on goes to its folder. */
  epoch: number;
  /** As it was last sure; null: never yet. */
  repositoryTime: string | null;
  /** By that repository time everything in the trash of this epoch and those before it lay there. By epoch. */
  settled: { epoch: number; at: string }[];
};

const lock = z.object({ days: z.int().positive().max(MAX_LOCK_DAYS), from: time.nullable() });
const flags = z.object({
  format,
  restorePointId: z.string().refine(isId128, '32 hex digits'),
  keep: z.boolean(),
  hold: z.string().max(1024).nullable(),
  lock: lock.nullable(),
});

export type FlagsDocument = {
  format: number;
  restorePointId: RestorePointId;
  keep: boolean;
  /** Why. */
  hold: string | null;
  /** `from`: repository time of the seal; null: not known yet, so the period has not begun. */
  lock: { days: number; from: string | null } | null;
};

/** Text of the file. */
export const encodeState = (value: StateDocument): string => encodeChecked(value, MAX_DOCUMENT_BYTES).text;

/** Text of the file. BAD_REQUEST for a reason to hold that is too long. */
export function encodeFlags(value: FlagsDocument): string {
  if (value.hold !== null && value.hold.length > 1024)
    throw new TidemarkError('BAD_REQUEST', 'a reason to hold has at most 1024 characters', { field: 'hold' });
  return encodeChecked(value, MAX_DOCUMENT_BYTES).text;
}

/** REPOSITORY_CORRUPT naming the file. */
export const parseState = (source: string, file: string): StateDocument => checked(state, source, file);
/** REPOSITORY_CORRUPT naming the file. */
export const parseFlags = (source: string, file: string): FlagsDocument =>
  checked(flags, source, file) as FlagsDocument;

function checked<S extends z.ZodType>(schema: S, source: string, file: string): z.infer<S> {
  const parsed = schema.safeParse(decodeChecked(source, file).value);
  if (parsed.success) return parsed.data;
  const field = parsed.error.issues[0]?.path.join('.') ?? '';
  throw new TidemarkError('REPOSITORY_CORRUPT', `${file}: ${field} is not understood`, { file, field });
}

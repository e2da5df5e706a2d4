/** What was found of a restore point after it was sealed (FORMAT.md, "Marks"). */
import { z } from 'zod';
import type { RestorePointMark } from '../domain/maintenance.ts';
import type { DiskKey, RestorePointId } from '../domain/ids.ts';
import { TidemarkError } from '../domain/errors.ts';
import { decodeChecked, encodeChecked } from './checked-json.ts';
import { isId128 } from './digest.ts';
import { FORMAT_VERSION, MAX_DISKS, MAX_DOCUMENT_BYTES } from './limits.ts';

const text = z.string().max(4096);
const one = z.object({
  state: z.enum(['suspect', 'damaged']),
  why: z.object({ code: text, message: text }),
  since: text,
});
const marks = z.object({
  format: z.literal(FORMAT_VERSION),
  restorePointId: z.string().refine(isId128, '32 hex digits'),
  marks: z.array(one).max(16),
  distrusted: z.array(text).max(MAX_DISKS).default([]),
});

export type MarksDocument = {
  format: number;
  restorePointId: RestorePointId;
  /** Of each state one at most. */
  marks: Omit<RestorePointMark, 'restorePointId'>[];
  /** Disks of which change tracking has lost changes since this restore point. */
  distrusted: DiskKey[];
};

export const encodeMarks = (value: MarksDocument): string => encodeChecked(value, MAX_DOCUMENT_BYTES).text;

/** REPOSITORY_CORRUPT naming the file. */
export function parseMarks(source: string, file: string): MarksDocument {
  const parsed = marks.safeParse(decodeChecked(source, file).value);
  if (parsed.success) return parsed.data as MarksDocument;
  const issue = parsed.error.issues[0];
  const why = `${issue?.path.join('.') ?? ''} ${issue?.message ?? 'is not understood'}`;
  throw new TidemarkError('REPOSITORY_CORRUPT', `${file}: ${why}`, { file });
}

/** Lists that grow line by line, each line checked on its own (FORMAT.md, "Checked lines"). */
import { z } from 'zod';
import { canonicalJson } from './checked-json.ts';
import { isId128, sumOf } from './digest.ts';
import { MAX_LINE_BYTES, MAX_PACK_BYTES } from './limits.ts';

const sumOfText = (json: string): string => sumOf(Buffer.from(json)).toString('hex');

/** With its line feed. */
export function encodeLine(value: unknown): string {
  const json = canonicalJson(value);
  return `${json} ${sumOfText(json)}\n`;
}

/** The value of a line without its line feed; undefined when it is damaged. */
function decodeLine(line: string): unknown {
  const at = line.lastIndexOf(' ');
  const json = line.slice(0, Math.max(0, at));
  if (line.length >= MAX_LINE_BYTES || sumOfText(json) !== line.slice(at + 1)) return undefined;
  try {
    return JSON.parse(json) as unknown;
  } catch {
    return undefined;
  }
}

const id128 = z.string().refine(isId128, '32 hex digits');
const text = z.string().max(1024);

const damaged = z.object({
  kind: z.enum(['record', 'page', 'pack']),
  pack: id128,
  offset: z.int().nonnegative().max(MAX_PACK_BYTES).nullable(),
  id: z
    .string()
    .regex(/^[0-9a-f]{64}$/)
    .nullable(),
  why: text,
  // Absent: it is not whole. Readers before this one pass it over.
  code: z.literal('TAMPERED').optional(),
  foundAt: text,
});
/** A line of `damaged`: a record at an offset of a pack, or (both null) something of the pack as a whole. */
export type DamagedLine = z.infer<typeof damaged>;

const depth = z.enum(['sums', 'full']);
const verified = z.union([
  z.object({ pack: id128, depth, at: text }),
  z.object({ begun: text, at: text }),
  z.object({ ended: text, at: text }),
]);
/** A line of `verified`: a pack that was read whole, or the beginning or end of a check of what the text names. */
export type VerifiedLine = z.infer<typeof verified>;

const parse =
  <T>(schema: z.ZodType<T>) =>
  (line: string): T | null =>
    schema.safeParse(decodeLine(line)).data ?? null;

/** Null for a line that is damaged or not understood. */
export const parseDamagedLine = parse(damaged);
export const parseVerifiedLine = parse(verified);

/** Canonical JSON, and the same with its digest beside it (FORMAT.md, "Canonical and checked JSON"). */
import { TidemarkError } from '../domain/errors.ts';
import { hexDigestOf } from './digest.ts';
import { MAX_DOCUMENT_BYTES } from './limits.ts';

/** Keys sorted by UTF-16 code units, no white space, absent members left out. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const members = Object.entries(value)
    .filter(([, member]) => member !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${members.map(([key, member]) => `${JSON.stringify(key)}:${canonicalJson(member)}`).join(',')}}`;
}

/** Text of the file and hex digest of the JSON in it. BUG when it would pass the limit. */
export function encodeChecked(value: unknown, maxBytes: number): { text: string; digest: string } {
  const json = canonicalJson(value);
  const digest = hexDigestOf(json);
  const text = `${json}\n${digest}\n`;
  if (Buffer.byteLength(text) > maxBytes) throw new TidemarkError('BUG', `checked json of over ${maxBytes} bytes`);
  return { text, digest };
}

/** The value of a checked file; throws REPOSITORY_CORRUPT naming `file` when the digest or the form is wrong. */
export function decodeChecked(text: string, file: string): { value: unknown; digest: string } {
  const end = text.indexOf('\n');
  const json = text.slice(0, end);
  if (text.length > MAX_DOCUMENT_BYTES)
    throw new TidemarkError('REPOSITORY_CORRUPT', `${file} is longer than ${MAX_DOCUMENT_BYTES} bytes`, { file });
  const digest = hexDigestOf(json);
  if (text.slice(end) !== `\n${digest}\n`)
    throw new TidemarkError('REPOSITORY_CORRUPT', `${file} does not match its checksum`, { file });
  try {
    return { value: JSON.parse(json) as unknown, digest };
  } catch (error) {
    throw new TidemarkError('REPOSITORY_CORRUPT', `${file} is not json`, { file }, error);
  }
}

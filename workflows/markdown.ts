/** Markdown for Temporal's UI. What matters most goes first: what is too long is cut at its end. */
import type { SessionErrorView } from '../schema/domain/sessions.ts';
import type { Finding } from '../schema/domain/states.ts';

/** Of a table, or a list of findings. */
export const MAX_ROWS = 50;
const MAX_CELL = 400;
/** Temporal's limit is 20,000 bytes. */
const MAX_BYTES = 19_500;
const CUT = '\n\n(cut: the rest is in `tidemark session show`)';

/** A cell must not end the table it stands in. */
export const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ').slice(0, MAX_CELL);

export const tableLine = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;

export const table = (titles: readonly string[], rows: readonly (readonly string[])[]): string[] =>
  tableOf(titles, rows.slice(0, MAX_ROWS).map(tableLine), rows.length);

/** `lines`: the first ones, of `count` that there are. */
export function tableOf(titles: readonly string[], lines: readonly string[], count: number): string[] {
  const more = count > MAX_ROWS ? [``, `and ${count - MAX_ROWS} more`] : [];
  return [tableLine(titles), `|${titles.map(() => '---').join('|')}|`, ...lines, ...more];
}

/** The newest ones. */
export const findingLines = (findings: readonly Finding[]): string[] =>
  findings.slice(-MAX_ROWS).map(({ level, code, message }) => `- ${level} \`${code}\`: ${cell(message)}`);

export const errorLines = ({ code, message, hint }: SessionErrorView): string[] => [
  `**${code}**: ${cell(message)}`,
  '',
  `What to do: ${hint}`,
];

/** Parts, with an empty line between those that are there; whole lines only. */
export function page(...parts: readonly (readonly string[])[]): string {
  const text = parts
    .filter((part) => part.length > 0)
    .map((part) => part.join('\n'))
    .join('\n\n');
  const encoder = new TextEncoder();
  if (encoder.encode(text).length <= MAX_BYTES) return text;
  const kept: string[] = [];
  let bytes = CUT.length;
  for (const line of text.split('\n')) {
    bytes += encoder.encode(line).length + 1;
    if (bytes > MAX_BYTES) break;
    kept.push(line);
  }
  return kept.join('\n') + CUT;
}

/** Options that several commands have. */
import { type Command, InvalidArgumentError } from 'commander';
import { parseDuration, parseSize } from '../engines/site/measures.ts';
import { STATE_OPTION } from './stack-access.ts';

/** `--state`, and `--json` with what it prints. */
export const withCommon = (command: Command, json: string): Command =>
  command.option(...STATE_OPTION).option('--json', `print ${json} as JSON`);

export const example = (command: Command, ...lines: string[]): Command =>
  command.addHelpText('after', `\n${lines.length === 1 ? 'Example' : 'Examples'}:\n  ${lines.join('\n  ')}`);

export function parseLimit(text: string): number {
  const limit = Number(text);
  if (/^\d{1,6}$/.test(text) && limit >= 1) return limit;
  throw new InvalidArgumentError('a limit is a number from 1 to 999999');
}

export function parseBytes(text: string): number {
  const bytes = parseSize(/^\d+$/.test(text) ? Number(text) : text);
  if (bytes !== null && bytes > 0) return bytes;
  throw new InvalidArgumentError('a size is like 512MiB, 200GiB or 2TiB');
}

export function parseTime(text: string): number {
  const durationMs = parseDuration(text);
  if (durationMs !== null && durationMs > 0) return durationMs;
  throw new InvalidArgumentError('a duration is like 90s, 15m or 1h30m');
}

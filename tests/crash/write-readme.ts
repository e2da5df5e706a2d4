/**
 * Puts the results of the kills into the README: run the crash tests with TIDEMARK_CRASH_RESULTS=<file>, then
 * `node tests/crash/write-readme.ts <file>`. The table stands between two marks.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Outcome } from '../fixtures/world/outcomes.ts';

const [begin, end] = ['<!-- results of tests/crash -->', '<!-- end of results -->'];
const readme = path.resolve(import.meta.dirname, '../../README.md');

const seconds = (ms: number): string => `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
const twice = (bytes: number | null): string => {
  if (bytes === null) return '-';
  return bytes === 0 ? 'nothing' : `${(bytes / 1024 / 1024).toFixed(0)} MiB`;
};

function row({ what, when, session, tookMs, sentTwiceBytes, heldMs, next }: Outcome): string {
  const held = heldMs === null ? '-' : seconds(heldMs);
  return `| ${[what, when, session, seconds(tookMs), twice(sentTwiceBytes), held, next].join(' | ')} |`;
}

const file = process.argv[2];
if (!file) throw new Error('usage: node tests/crash/write-readme.ts <results, JSON lines>');
const results = readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Outcome);
const table = [
  '| dies (SIGKILL) | when | the session | ended after | sent twice | guest thawed after | the next session |',
  '|---|---|---|---|---|---|---|',
  ...results.map(row),
].join('\n');
const text = readFileSync(readme, 'utf8');
const [from, to] = [text.indexOf(begin), text.indexOf(end)];
if (from < 0 || to < from) throw new Error(`${readme} has no marks for the table`);
writeFileSync(readme, `${text.slice(0, from + begin.length)}\n\n${table}\n\n${text.slice(to)}`);

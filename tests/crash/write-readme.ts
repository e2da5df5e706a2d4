/**
 * Puts the results of the kills into the README: run the crash tests with TIDEMARK_CRASH_RESULTS=<file>, then
 * `node tests/crash/write-readme.ts <file>`. The table stands between two marks.
 */
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { Outcome } from '../fixtures/world/outcomes.ts';

const [begin, end] = ['<!-- results of tests/crash -->', '<!-- end of results -->'];
const readme = path.resolve(import.meta.dirname, '../../README.md');

type Result = Outcome & { victim: string };

function row({ victim, at, tookMs, twice }: Result): string {
  const again = twice <= 0 ? 'nothing' : `${(twice / 1024 / 1024).toFixed(0)} MiB`;
  return `| ${victim} | ${at} | Success, by itself | ${(tookMs / 1000).toFixed(0)} s | ${again} |`;
}

const file = process.argv[2];
if (!file) throw new Error('usage: node tests/crash/write-readme.ts <results, JSON lines>');
const results = readFileSync(file, 'utf8')
  .trim()
  .split('\n')
  .map((line) => JSON.parse(line) as Result);
const table = [
  '| killed (SIGKILL) | when | the session | ended after | sent twice |',
  '|---|---|---|---|---|',
  ...results.map(row),
].join('\n');
const text = readFileSync(readme, 'utf8');
const [from, to] = [text.indexOf(begin), text.indexOf(end)];
if (from < 0 || to < from) throw new Error(`${readme} has no marks for the table`);
writeFileSync(readme, `${text.slice(0, from + begin.length)}\n\n${table}\n\n${text.slice(to)}`);

/**
 * Everything `npm test` checks, one after another, with one closing line: "N passed, N failed".
 * A check (formatter, linter, types, layers) counts as one test. Arguments are passed on to vitest.
 */
import { spawn } from 'node:child_process';
import { randomInt } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { leftToOthers, turnOf } from './taking-turns.ts';

/** TIDEMARK_TEST_SEED repeats a run. */
const seed = Number(process.env['TIDEMARK_TEST_SEED'] ?? randomInt(1, 2 ** 31));
const isWhole = process.argv.length === 2;
const turn = isWhole ? turnOf(seed) : {};
const root = path.resolve(import.meta.dirname, '..');
const bin = (name: string): string => path.join(root, 'node_modules/.bin', name);
const sources = ['schema', 'engines', 'activities', 'workflows', 'workers', 'cli', 'tests'];

function run(command: string, args: string[]): Promise<boolean> {
  const environment = {
    ...process.env,
    ...turn,
    PATH: `${path.join(root, 'node_modules/.bin')}:${process.env['PATH']}`,
  };
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['ignore', 'inherit', 'inherit'], env: environment });
    child.once('error', () => resolve(false));
    child.once('exit', (code) => resolve(code === 0));
  });
}

type Tally = { passed: number; failed: number; skipped: number };
type VitestReport = {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  numFailedTestSuites: number;
};

async function check(name: string, command: string, args: string[]): Promise<Tally> {
  const ok = await run(bin(command), args);
  console.log(`${ok ? 'ok  ' : 'FAIL'} ${name}`);
  return { passed: ok ? 1 : 0, failed: ok ? 0 : 1, skipped: 0 };
}

async function vitest(folder: string): Promise<Tally> {
  const report = path.join(folder, 'report.json');
  const reporters = ['--reporter=default', '--reporter=json', `--outputFile.json=${report}`];
  const ok = await run(bin('vitest'), ['run', ...reporters, ...process.argv.slice(2)]);
  const text = await readFile(report, 'utf8').catch(() => null);
  if (text === null) return { passed: 0, failed: 1, skipped: 0 };
  const counts = JSON.parse(text) as VitestReport;
  const failed = Math.max(counts.numFailedTests, counts.numFailedTestSuites > 0 || !ok ? 1 : 0);
  return { passed: counts.numPassedTests, failed, skipped: counts.numPendingTests };
}

const left = leftToOthers({ ...process.env, ...turn });
if (left.length > 0)
  console.log(`left to other runs (TIDEMARK_TEST_ALL=1 plays all):\n${left.map((file) => `  ${file}\n`).join('')}`);
const folder = await mkdtemp(path.join(tmpdir(), 'tidemark-test-'));
const tallies = [
  await check('format', 'prettier', ['--check', '--log-level', 'warn', '.']),
  await check('lint', 'oxlint', ['--type-aware', '--deny-warnings']),
  await check('types', 'tsc', ['-p', '.']),
  await check('layers', 'depcruise', ['--config', '.dependency-cruiser.mjs', '--output-type', 'err', ...sources]),
  await vitest(folder),
];
await rm(folder, { recursive: true, force: true });
const sum = (key: keyof Tally): number => tallies.reduce((total, tally) => total + tally[key], 0);
console.log(`\n${sum('passed')} passed, ${sum('failed')} failed, ${sum('skipped')} skipped`);
process.exitCode = sum('failed') > 0 ? 1 : 0;

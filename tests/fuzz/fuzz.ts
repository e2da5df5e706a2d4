/**
 * Seeded fuzzing of parsers. Each round takes an input of the pool, spoils it, mends its sums most of the time, and
 * judges it. Accepted ones join the pool: from them the next ones come further. An input that breaks a property is
 * written to the corpus, which every run plays first; there it stays, as a test.
 *
 * TIDEMARK_FUZZ_MS: CPU time per target (default 250). TIDEMARK_TEST_SEED repeats a run.
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { hexDigestOf } from '../../schema/repository/digest.ts';
import { randomFrom } from '../fixtures/mover/disks.ts';
import { cpuMs, judge, type FuzzTarget } from './judge.ts';
import { mutate } from './mutate.ts';

export const fuzzMs = Number(process.env['TIDEMARK_FUZZ_MS'] ?? 250);
const MAX_POOL = 200;
/** Longer ones make rounds slow. */
const MAX_POOL_INPUT_BYTES = 8192;
const MAX_SHRINK_MS = 2000;
const MAX_HEX_SHOWN = 4000;
const ROUNDS_PER_LOOK = 16;

export type Found = { problem: string; input: Buffer };

/** Inputs of `folder/<target>/*.hex`: lines of hex, with comments after "#". */
export function readCorpus(folder: string, target: FuzzTarget): { file: string; input: Buffer }[] {
  const inside = path.join(folder, target.name);
  const files = existsSync(inside) ? readdirSync(inside).filter((name) => name.endsWith('.hex')) : [];
  return files.sort().map((name) => {
    const text = readFileSync(path.join(inside, name), 'utf8').replaceAll(/#.*|\s/g, '');
    return { file: path.join(inside, name), input: Buffer.from(text, 'hex') };
  });
}

function keep(folder: string, target: FuzzTarget, { problem, input }: Found, from: string): string {
  const file = path.join(folder, target.name, `${hexDigestOf(input).slice(0, 16)}.hex`);
  mkdirSync(path.dirname(file), { recursive: true });
  const hex = input.toString('hex').replaceAll(/.{1,64}/g, '$&\n');
  writeFileSync(file, `# ${from}\n# ${problem.slice(0, 200).replaceAll(/\s+/g, ' ')}\n${hex}`);
  return file;
}

const kindOf = (problem: string): string => problem.replaceAll(/[\d.]+|:.*/gs, '');

/**
 * Cuts pieces out as long as the same kind of problem stays, and makes zero what cannot be cut: what is left is what
 * matters. Cutting alone gets stuck where a number in the input has to stay below the length of what follows it.
 */
function shrink(target: FuzzTarget, found: Found): Found {
  const endMs = cpuMs() + MAX_SHRINK_MS;
  const likeIt = (input: Buffer): Found | undefined =>
    [input, target.mend(Buffer.from(input), randomFrom(1))]
      .filter(({ length }) => length <= input.length)
      .map((each) => ({ input: each, problem: judge(target, each).problem ?? '' }))
      .find(({ problem }) => kindOf(problem) === kindOf(found.problem));
  const replaced = ({ input }: Found, at: number, length: number, by: Buffer): Found | undefined =>
    likeIt(Buffer.concat([input.subarray(0, at), by, input.subarray(at + length)]));
  const pass = (best: Found): Found => {
    for (let length = best.input.length >> 1; length >= 1; length >>= 1)
      for (let at = 0; at + length <= best.input.length && cpuMs() < endMs;) {
        const shorter = replaced(best, at, length, Buffer.alloc(0));
        best = shorter ?? replaced(best, at, length, Buffer.alloc(length)) ?? best;
        if (!shorter) at += length;
      }
    return best;
  };
  let [best, last] = [pass(found), found];
  while (best.input.length < last.input.length) [best, last] = [pass(best), best];
  return best;
}

export type Totals = { rounds: number; accepted: number };

/**
 * Plays the corpus, then mutated inputs for `budgetMs` of CPU time. Throws naming target, seed and input of the first
 * that breaks a property; it is in the corpus then.
 */
export function fuzz(target: FuzzTarget, folder: string, seed: number, budgetMs = fuzzMs): Totals {
  const kept = readCorpus(folder, target);
  for (const { file, input } of kept) {
    const { problem } = judge(target, input);
    if (problem !== null) throw failure(target, { problem, input }, `kept in ${file}`);
  }
  const refused = target.seeds.findIndex((input) => !judge(target, input).accepted);
  if (refused >= 0) throw new Error(`${target.name}: seed input ${refused} is not accepted`);
  const pool = [...target.seeds];
  const others = kept.map(({ input }) => input);
  const totals = { rounds: 0, accepted: 0 };
  const endMs = cpuMs() + budgetMs;
  for (; totals.rounds % ROUNDS_PER_LOOK > 0 || cpuMs() < endMs; totals.rounds += 1) {
    const next = randomFrom(Math.imul(seed + totals.rounds, 0x9e37_79b1));
    const mutated = mutate(pool[next(pool.length)]!, [...pool, ...others], target.kind, next);
    const input = next(4) === 0 ? mutated : target.mend(mutated, next);
    const { accepted, problem } = judge(target, input);
    if (problem !== null) throw keptFailure(target, folder, { problem, input }, `seed ${seed}, round ${totals.rounds}`);
    if (!accepted) continue;
    totals.accepted += 1;
    if (input.length > MAX_POOL_INPUT_BYTES) continue;
    if (pool.length < MAX_POOL) pool.push(input);
    else pool[target.seeds.length + next(MAX_POOL - target.seeds.length)] = input;
  }
  return totals;
}

function keptFailure(target: FuzzTarget, folder: string, found: Found, from: string): Error {
  const small = shrink(target, found);
  return failure(target, small, `${from}, kept in ${keep(folder, target, small, from)}`);
}

function failure(target: FuzzTarget, { problem, input }: Found, from: string): Error {
  const hex = input.toString('hex');
  const shown = hex.length > MAX_HEX_SHOWN ? `${hex.slice(0, MAX_HEX_SHOWN)}...` : hex;
  return new Error(`${target.name}: ${problem} (${from})\n${input.length} bytes: ${shown}`);
}

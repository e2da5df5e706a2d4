/** Whether the fuzzer would find what it looks for: parsers with faults, and one without. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { crc32 } from 'node:zlib';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { seeded } from '../fixtures/mover/disks.ts';
import { fuzz, readCorpus } from './fuzz.ts';
import { bytesFlaw, cpuMs, fuzzTarget, judge, type FuzzTarget } from './judge.ts';

const LENGTH = 4;
const BUDGET_MS = 2000;
/** One seed in thirty once ended in an input that could not be cut further: one alone rarely tells. */
const SEEDS = 50;
const seal = (input: Buffer): Buffer => {
  if (input.length >= 8) input.writeUInt32LE(crc32(input.subarray(4)));
  return input;
};
/** crc, length of the rest, the rest: a small format of the kind we have. */
const seed = seal(Buffer.from([0, 0, 0, 0, 5, 0, 0, 0, ...Buffer.from('hello')]));
const isWhole = (input: Buffer): boolean => input.length >= 8 && input.readUInt32LE(0) === crc32(input.subarray(4));
const isSound = (input: Buffer): boolean => isWhole(input) && input.readUInt32LE(LENGTH) === input.length - 8;

function toy(faulty: (input: Buffer) => Buffer | null): FuzzTarget {
  return fuzzTarget<Buffer>({
    name: 'toy',
    kind: 'binary',
    seeds: [seed],
    mend: seal,
    parse: (input) => (isWhole(input) ? faulty(input) : null),
    codes: ['REPOSITORY_CORRUPT'],
    maxAllocatedBytes: () => 1000,
    flaw: (rest, input) => bytesFlaw(input.subarray(8), rest),
  });
}

let corpus: string;
beforeEach(() => {
  corpus = mkdtempSync(path.join(tmpdir(), 'tidemark-fuzz-'));
});
afterEach(() => rmSync(corpus, { recursive: true }));

const allocating = (input: Buffer): Buffer | null => {
  const length = input.readUInt32LE(LENGTH);
  Buffer.alloc(Math.min(length, 100_000));
  return isSound(input) ? input.subarray(8) : null;
};

test.each<[string, (input: Buffer) => Buffer | null, RegExp]>([
  ['allocates before it checks', allocating, /toy: \d+ bytes were allocated/],
  [
    'reads where nothing is',
    (input) =>
      Buffer.of(input.readUInt8(7 + input.readUInt32LE(LENGTH))).length === 1 && isSound(input)
        ? input.subarray(8)
        : null,
    /toy: it threw RangeError/,
  ],
  [
    'takes what is cut',
    (input) => input.subarray(8, 8 + input.readUInt32LE(LENGTH)),
    /toy: it is encoded in other bytes/,
  ],
  [
    'throws what it may not',
    (input) => {
      if (isSound(input)) return input.subarray(8);
      throw new TidemarkError('BUG', 'of a length');
    },
    /toy: it threw BUG: of a length/,
  ],
])('a parser that %s is found; its input is kept, and played by every run', (_, faulty, said) => {
  const target = toy(faulty);
  const { seed: first } = seeded();
  for (let number = first; number < first + SEEDS; number += 1) {
    const folder = path.join(corpus, `${number}`);
    expect(() => fuzz(target, folder, number, BUDGET_MS)).toThrow(said);
    const [kept, ...more] = readCorpus(folder, target);
    expect(more).toEqual([]);
    expect(kept!.input.length).toBeLessThanOrEqual(16);
    expect(() => fuzz(target, folder, number, 0)).toThrow(`kept in ${kept!.file}`);
  }
});

test('a sound parser is left alone', () => {
  const sound = toy((input) => (isSound(input) ? input.subarray(8) : null));
  const { rounds, accepted } = fuzz(sound, corpus, seeded().seed, 50);
  expect(accepted).toBeGreaterThan(0);
  expect(rounds).toBeGreaterThan(accepted);
  expect(readCorpus(corpus, sound)).toEqual([]);
});

test('what takes long, or changes its input, is found', () => {
  const slow = (input: Buffer): Buffer => {
    for (const endMs = cpuMs() + 60; cpuMs() < endMs;);
    return input.subarray(8);
  };
  expect(judge(toy(slow), seed).problem).toMatch(/^it took \d+\.\d ms$/);
  const changing = (input: Buffer): Buffer => input.fill(0).subarray(8);
  expect(judge(toy(changing), Buffer.from(seed)).problem).toBe('the parser changed its input');
});

test('a seed that is refused is told', () => {
  expect(() =>
    fuzz(
      toy(() => null),
      corpus,
      1,
      0,
    ),
  ).toThrow('toy: seed input 0 is not accepted');
});

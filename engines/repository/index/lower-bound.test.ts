import { expect, test } from 'vitest';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { lowerBound, lowerBoundOfEven } from './lower-bound.ts';

const LIMIT = 2 ** 32;
const { next } = seeded();
const many = (count: number, one: () => number): Uint32Array => Uint32Array.from({ length: count }, one).sort();

/** How numbers lie is no condition, only what makes it quick. */
const spreads: Record<string, Uint32Array> = {
  none: new Uint32Array(0),
  one: Uint32Array.of(7),
  'the ends': Uint32Array.of(0, 0, LIMIT - 1, LIMIT - 1),
  'all alike': new Uint32Array(100).fill(5),
  evenly: many(5000, () => next(LIMIT)),
  'few, often': many(5000, () => next(50)),
  'all low': many(5000, () => next(100_000)),
  'all high': many(5000, () => LIMIT - 1 - next(100_000)),
  'in two heaps': many(5000, () => (next(2) === 0 ? next(1000) : LIMIT - 1 - next(1000))),
};

test.each(Object.entries(spreads))('%s: the first that is not below', (_, numbers) => {
  const near = [...numbers].flatMap((number) => [number - 1, number, number + 1]);
  const asked = [0, LIMIT - 1, ...near, ...Array.from({ length: 500 }, () => next(LIMIT))];
  for (const value of asked.filter((each) => each >= 0 && each < LIMIT)) {
    const at = lowerBoundOfEven(numbers, value);
    expect(at).toBe(lowerBound(numbers, value));
    if ((at > 0 && numbers[at - 1]! >= value) || (at < numbers.length && numbers[at]! < value))
      throw new Error(`${value} does not belong at ${at}`);
  }
});

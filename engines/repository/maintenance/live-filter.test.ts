import { createHash } from 'node:crypto';
import { expect, test } from 'vitest';
import { LiveFilter } from './live-filter.ts';

const idOf = (number: number): Buffer => createHash('sha256').update(String(number)).digest();
const COUNT = 20_000;
const ids = Array.from({ length: 2 * COUNT }, (_, number) => idOf(number));
const [added, others] = [ids.slice(0, COUNT), ids.slice(COUNT)];

function filterOf(capacity: number, seed: number): LiveFilter {
  const filter = new LiveFilter(capacity, seed);
  for (const id of added) filter.add(id);
  return filter;
}

test('holds all that was added, and of others next to none', () => {
  const filter = filterOf(COUNT, 1);
  expect(added.every((id) => filter.mayHold(id))).toBe(true);
  // One in a thousand: 20 of 20 000; 60 is nine standard deviations off.
  expect(others.filter((id) => filter.mayHold(id)).length).toBeLessThan(60);
});

test('beyond its capacity it errs, but on the safe side', () => {
  const filter = filterOf(COUNT / 8, 1);
  expect(added.every((id) => filter.mayHold(id))).toBe(true);
  expect(new LiveFilter(0, 1).mayHold(ids[0]!)).toBe(false);
});

test('another seed mistakes others: what one takes for living by mistake the next does not', () => {
  const mistaken = (seed: number): Buffer[] => {
    const filter = filterOf(COUNT / 2, seed);
    return others.filter((id) => filter.mayHold(id));
  };
  const first = mistaken(7);
  const second = new Set(mistaken(8));
  expect(first.length).toBeGreaterThan(100);
  expect(first.filter((id) => second.has(id)).length).toBeLessThan(first.length / 8);
});

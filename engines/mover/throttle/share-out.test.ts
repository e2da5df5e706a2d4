import { expect, test } from 'vitest';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { type Claim, shareOut } from './share-out.ts';

const hungry = (...limits: number[]): Claim => ({ demand: Infinity, limits });

test('equal shares; what one cannot use is the others; the lowest limit wins', () => {
  expect(shareOut([90], [hungry(0), hungry(0), hungry(0)])).toEqual([30, 30, 30]);
  expect(shareOut([90], [{ demand: 10, limits: [0] }, hungry(0), hungry(0)])).toEqual([10, 40, 40]);
  expect(shareOut([90], [{ demand: 0, limits: [0] }, hungry(0)])).toEqual([0, 90]);
  // The first is held by both: it gets the lower one's share, and the other what is left.
  expect(shareOut([100, 20], [hungry(0, 1), hungry(0)])).toEqual([20, 80]);
  expect(shareOut([100], [hungry(), hungry(0)])).toEqual([Infinity, 100]);
  expect(shareOut([], [])).toEqual([]);
});

test('whatever is claimed: no limit is exceeded, nobody who could use more is left below another', () => {
  const { next } = seeded();
  for (let round = 0; round < 500; round += 1) {
    const capacities = Array.from({ length: 1 + next(4) }, () => 1 + next(1000));
    const claims = Array.from({ length: 1 + next(8) }, (): Claim => {
      const limits = [...capacities.keys()].filter(() => next(2) === 0);
      return { demand: next(3) === 0 ? next(300) : Infinity, limits };
    });
    const rates = shareOut(capacities, claims);
    const used = capacities.map((_, limit) =>
      claims.reduce((sum, claim, at) => sum + (claim.limits.includes(limit) ? rates[at]! : 0), 0),
    );
    for (const [limit, capacity] of capacities.entries()) expect(used[limit]!).toBeLessThanOrEqual(capacity * 1.000001);
    for (const [at, { demand, limits }] of claims.entries()) {
      if (limits.length === 0) continue;
      expect(rates[at]!).toBeLessThanOrEqual(demand);
      const isSated = rates[at]! >= demand * 0.999999;
      // Max-min fair: one of his limits is full, and in it nobody has more than he.
      const isFair = limits.some((limit) => {
        const most = Math.max(...claims.map((claim, other) => (claim.limits.includes(limit) ? rates[other]! : 0)));
        return used[limit]! >= capacities[limit]! * 0.999 && rates[at]! >= most * 0.999;
      });
      expect(isSated || isFair, JSON.stringify({ capacities, claims, rates })).toBe(true);
    }
  }
});

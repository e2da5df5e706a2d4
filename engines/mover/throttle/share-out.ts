/**
 * Shares out limited rates: everybody's rate is raised alike until he has what he can use or one of his limits is reached,
 * which leaves the rest to the others. Pure. Bytes per second.
 */

/** `demand`: what he can use at most; Infinity: whatever he gets. `limits`: indices of the capacities that hold for him. */
export type Claim = { demand: number; limits: readonly number[] };

/** Rate per claim, in their order; Infinity for one that no limit holds for. */
export function shareOut(capacities: readonly number[], claims: readonly Claim[]): number[] {
  const rates = claims.map(({ limits }) => (limits.length === 0 ? Infinity : 0));
  const left = [...capacities];
  let rising = claims.map((_, at) => at).filter((at) => rates[at] === 0);
  while (rising.length > 0) {
    const step = stepOf(left, claims, rates, rising);
    for (const at of rising) {
      rates[at]! += step;
      for (const limit of claims[at]!.limits) left[limit]! -= step;
    }
    // What was reached is so but for the rounding of the sums.
    const isFull = (limit: number): boolean => left[limit]! <= capacities[limit]! * 1e-9;
    const before = rising.length;
    rising = rising.filter((at) => rates[at]! < claims[at]!.demand * (1 - 1e-9) && !claims[at]!.limits.some(isFull));
    if (rising.length === before) break;
  }
  return rates;
}

/** How far all that rise may rise together. */
function stepOf(
  left: readonly number[],
  claims: readonly Claim[],
  rates: readonly number[],
  rising: readonly number[],
): number {
  let step = Infinity;
  const sharers = left.map(() => 0);
  for (const at of rising) {
    step = Math.min(step, claims[at]!.demand - rates[at]!);
    for (const limit of claims[at]!.limits) sharers[limit]! += 1;
  }
  for (const [limit, count] of sharers.entries()) if (count > 0) step = Math.min(step, left[limit]! / count);
  return Math.max(0, step);
}

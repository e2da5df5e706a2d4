/** Where a number belongs among ascending ones. */

/** How far from a guess is looked first. */
const FIRST_STEP = 4;

/** Index of the first number that is not below `value`. */
export function lowerBound(numbers: Uint32Array, value: number, from = 0, to = numbers.length): number {
  let low = from;
  let high = to;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (numbers[middle]! < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * The same, quicker where numbers are spread evenly over 32 bits, as the beginnings of digests are: a guess, corrected by
 * what is found there, is some places off. Halving a million numbers misses the processor's caches some fifteen times.
 */
export function lowerBoundOfEven(numbers: Uint32Array, value: number): number {
  const count = numbers.length;
  if (count === 0) return 0;
  const perUnit = count / 2 ** 32;
  const first = Math.floor(value * perUnit);
  const offBy = Math.trunc((value - numbers[first]!) * perUnit);
  const guess = Math.min(count - 1, Math.max(0, first + offBy));
  return numbers[guess]! < value ? boundAbove(numbers, value, guess + 1) : boundBelow(numbers, value, guess);
}

/** It is `low` or above. */
function boundAbove(numbers: Uint32Array, value: number, from: number): number {
  let low = from;
  for (let step = FIRST_STEP; ; step *= 4) {
    const probe = low + step;
    if (probe >= numbers.length) return lowerBound(numbers, value, low);
    if (numbers[probe]! >= value) return lowerBound(numbers, value, low, probe);
    low = probe + 1;
  }
}

/** It is `high` or below. */
function boundBelow(numbers: Uint32Array, value: number, from: number): number {
  let high = from;
  for (let step = FIRST_STEP; ; step *= 4) {
    const probe = high - step;
    if (probe < 0) return lowerBound(numbers, value, 0, high);
    if (numbers[probe]! < value) return lowerBound(numbers, value, probe + 1, high);
    high = probe;
  }
}

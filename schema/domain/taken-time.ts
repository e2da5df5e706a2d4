/** When a restore point was taken, whichever one of the clocks that say so is wrong. Pure. */

/** ISO 8601, as in the manifest. */
export type PointTimes = { takenAt: string; nominalTime: string; sealedAt: string };

/**
 * Milliseconds since the epoch. Three clocks know: that of Temporal, when it was due; that of the hypervisor's host, when
 * it was taken; that of the repository's host, when it was sealed. They come in this order, so the middle one is when it
 * was taken, and stays near it when one clock is wrong, however far. NaN when `takenAt` or `sealedAt` cannot be read; a
 * due time that cannot be read has no say.
 */
export function takenMs({ takenAt, nominalTime, sealedAt }: PointTimes): number {
  const [due, taken, sealed] = [Date.parse(nominalTime), Date.parse(takenAt), Date.parse(sealedAt)] as const;
  const lowest = Math.min(taken, sealed);
  const highest = Math.max(taken, sealed);
  return Number.isNaN(due) ? taken : Math.max(lowest, Math.min(due, highest));
}

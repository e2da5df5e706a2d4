/** What a VM's next restore point is expected to take in the repository: an estimate for the scheduler. Pure. */

/** Newest first. `isIncrement`: built on another. Bytes. */
export type StoredBefore = { storedBytes: number; isIncrement: boolean };

const INCREMENTS_LOOKED_AT = 5;
/** What the next increment may take beyond the largest of the last ones. */
const MARGIN = 1.25;
/** Of a VM that was only ever read in full. */
const CHANGED_SHARE = 0.25;
/** Of disks never read: they are seldom full, and what is in them shrinks. */
const STORED_SHARE = 0.5;

/** Null: nothing is known. `sizeBytes`: of its disks. */
export function expectedBytes(before: readonly StoredBefore[], sizeBytes: number | null): number | null {
  const increments = before.filter(({ isIncrement }) => isIncrement).slice(0, INCREMENTS_LOOKED_AT);
  const largest = Math.max(0, ...increments.map(({ storedBytes }) => storedBytes));
  if (increments.length > 0) return Math.ceil(largest * MARGIN);
  const [last] = before;
  if (last) return Math.ceil(last.storedBytes * CHANGED_SHARE);
  return sizeBytes === null ? null : Math.ceil(sizeBytes * STORED_SHARE);
}

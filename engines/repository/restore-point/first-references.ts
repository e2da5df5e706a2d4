/** Which records a restore point wrote and references: the first reference counts as stored, further ones as deduplicated. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { IndexEntry, RecordIndex } from '../index/record-index.ts';

export type FirstReferences = {
  /** Whether this is the first reference to a record of this restore point. */
  note(entry: IndexEntry): boolean;
};

/** A bit per entry of the index, for all disks of the restore point. */
export function createFirstReferences(index: RecordIndex, writer: RestorePointId): FirstReferences {
  let seen = new Uint8Array(Math.ceil(index.numberLimit() / 8));
  return {
    note: ({ number, writer: wrote }) => {
      if (wrote !== writer) return false;
      if (number >= seen.length * 8) {
        const longer = new Uint8Array(Math.ceil((number + 1) / 8) * 2);
        longer.set(seen);
        seen = longer;
      }
      const bit = 1 << (number & 7);
      const isFirst = (seen[number >> 3]! & bit) === 0;
      seen[number >> 3]! |= bit;
      return isFirst;
    },
  };
}

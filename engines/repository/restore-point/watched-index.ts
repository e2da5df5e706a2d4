/** The index as work on restore points sees it: whatever is asked of it is relied on. */
import type { RecordIndex } from '../index/record-index.ts';
import type { Reliance } from './reliance.ts';

export function watchIndex(index: RecordIndex, { touch }: Pick<Reliance, 'touch'>): RecordIndex {
  return {
    ...index,
    lookup: (id) => {
      touch(id);
      return index.lookup(id);
    },
    holds: (id, rawLength) => {
      touch(id);
      return index.holds(id, rawLength);
    },
    apply: (records) => {
      for (const { id } of records) touch(id);
      index.apply(records);
    },
  };
}

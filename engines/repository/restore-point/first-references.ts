/** Which records a restore point wrote and references: the first reference counts as stored, further ones as deduplicated. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { writerTagOf } from '../index/entry.ts';
import type { IndexEntry } from '../index/record-index.ts';
import { DigestSet } from './digest-set.ts';

export type FirstReferences = {
  /** Whether this is the first reference to a record of this restore point. */
  note(digest: Uint8Array, entry: IndexEntry): boolean;
};

/** For all disks of the restore point; memory grows with the records it wrote, 16 to 32 bytes each. */
export function createFirstReferences(writer: RestorePointId): FirstReferences {
  const tag = writerTagOf(writer);
  const seen = new DigestSet();
  return { note: (digest, entry) => entry.writer === tag && seen.add(digest) };
}

/** What a check works with, besides what restore points do. */
import type { RecordSource } from '../../../schema/domain/seams.ts';
import type { Parts } from '../restore-point/parts.ts';
import type { MarkStore } from './marks.ts';
import type { PackWorker } from './pack-worker.ts';
import type { VerifiedPacks } from './verified-packs.ts';

export type CheckParts = Parts & {
  source: RecordSource;
  marks: MarkStore;
  verified: VerifiedPacks;
  /** Null: this process does not read packs. */
  openPackWorker: (() => PackWorker) | null;
};

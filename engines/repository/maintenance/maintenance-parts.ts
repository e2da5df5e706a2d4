/** What maintenance works with, besides what restore points do. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RestorePointState } from '../../../schema/domain/retention.ts';
import type { RecordSource } from '../../../schema/domain/seams.ts';
import type { RecordIndex } from '../index/record-index.ts';
import type { DigestIndex } from '../restore-point/digest-index.ts';
import type { Parts } from '../restore-point/parts.ts';
import type { FlagStore } from './flags.ts';
import type { MarkStore } from './marks.ts';
import type { RepositoryState } from './repository-state.ts';
import type { RepositoryTime } from './repository-time.ts';
import type { TrashedManifests } from './trash-list.ts';

export type MaintenanceParts = Parts & {
  /** The index itself: what is asked of it here is not relied on. By ids. */
  records: RecordIndex;
  /** The same by digests. */
  unwatched: DigestIndex;
  source: RecordSource;
  trashed: TrashedManifests;
  state: RepositoryState;
  time: RepositoryTime;
  flags: FlagStore;
  marks: MarkStore;
  stateOf: (id: RestorePointId) => RestorePointState;
  /** What was written until now lies in closed packs, as far as there is space to close them. */
  closePacks: () => Promise<void>;
  graceMs: number;
  undeleteWaitMs: number;
  /** 0: new restore points are not locked. */
  lockDays: number;
};

/** Thread entry: reads and salvages packs of a repository, for checks. */
import { workerData } from 'node:worker_threads';
import { decodeBlock } from '../../engines/mover/block-codec.ts';
import { runPackThread } from '../../engines/repository/maintenance/pack-threads.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { openRepositoryStorage } from '../runtime/repository-storage.ts';
import { laneSeams, parent } from './lane-seams.ts';
import type { RepositoryLaneData } from './target-lane.ts';

export type PackLaneData = RepositoryLaneData & { uuid: string };

const data = workerData as PackLaneData;
const seams = laneSeams('pack-lane');

runPackThread(parent(), {
  storage: openRepositoryStorage(data.storage, seams),
  vault: openVault(data.keys, seams.random),
  uuid: data.uuid,
  decode: decodeBlock,
});

/** Thread entry: a target lane on a repository's storage, with its keys. */
import { workerData } from 'node:worker_threads';
import { runTargetLane, type TargetLaneData } from '../../engines/mover/target/lane.ts';
import { IDLE_PACK_MS, openRecordSink } from '../../engines/repository/pack/record-sink.ts';
import { openRecordSource } from '../../engines/repository/pack/record-source.ts';
import type { StorageDescription } from '../../engines/repository/storage/storage.ts';
import type { DataKeys, VaultKeys } from '../../schema/repository/keys.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { openRepositoryStorage } from '../runtime/repository-storage.ts';
import { laneSeams, parent } from './lane-seams.ts';
import { serverEnd, type TargetLaneSecurity } from './secure-ends.ts';

/** `keys`: null of a plain repository. */
export type RepositoryLaneData = { storage: StorageDescription; keys: VaultKeys | null };
/** `security`: null when it listens to no other machine. */
export type TargetLaneParts = RepositoryLaneData & { security: TargetLaneSecurity | null };

const data = workerData as TargetLaneData & { laneData: TargetLaneParts };
const seams = laneSeams('target-lane');
const storage = openRepositoryStorage(data.laneData.storage, seams);
const vault = openVault(data.laneData.keys, seams.random);
const { security } = data.laneData;

runTargetLane({
  port: parent(),
  data,
  sink: openRecordSink({ storage, vault, seams, idleMs: IDLE_PACK_MS }),
  records: openRecordSource({ storage, vault, idle: { clock: seams.clock, idleMs: IDLE_PACK_MS } }),
  seams,
  onTold: (news) => vault.takeDataKeys(news as DataKeys),
  secure: security ? await serverEnd(security, seams) : undefined,
});

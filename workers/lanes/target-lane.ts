/** Thread entry: a target lane on a repository's storage, the description of which is its `laneData`. */
import { workerData } from 'node:worker_threads';
import { runTargetLane, type TargetLaneData } from '../../engines/mover/target/lane.ts';
import { openRecordSink } from '../../engines/repository/pack/record-sink.ts';
import { openRecordSource } from '../../engines/repository/pack/record-source.ts';
import type { StorageDescription } from '../../engines/repository/storage/storage.ts';
import { openRepositoryStorage } from '../runtime/repository-storage.ts';
import { laneSeams, parent } from './lane-seams.ts';

const data = workerData as TargetLaneData & { laneData: { storage: StorageDescription } };
const seams = laneSeams('target-lane');
const storage = openRepositoryStorage(data.laneData.storage, seams);

runTargetLane({
  port: parent(),
  data,
  sink: openRecordSink({ storage, seams }),
  records: openRecordSource({ storage }),
  seams,
});

/** Thread entry: a target lane on a repository folder, which is its `laneData`. */
import { workerData } from 'node:worker_threads';
import { runTargetLane, type TargetLaneData } from '../../engines/mover/target/lane.ts';
import { openRecordSink } from '../../engines/repository/pack/record-sink.ts';
import { openRecordSource } from '../../engines/repository/pack/record-source.ts';
import { laneSeams, parent } from './lane-seams.ts';

const data = workerData as TargetLaneData & { laneData: { folder: string } };
const seams = laneSeams('target-lane');
const { folder } = data.laneData;

runTargetLane({
  port: parent(),
  data,
  sink: openRecordSink({ folder, seams }),
  records: openRecordSource({ folder }),
  seams,
});

/** Target lane of the bench: everything is checked as always, then forgotten. */
import { parentPort, workerData } from 'node:worker_threads';
import { runTargetLane, type TargetLaneData } from '../../engines/mover/target/lane.ts';
import { createSeams } from '../../workers/runtime/seams.ts';

let length = 0;
runTargetLane({
  port: parentPort!,
  data: workerData as TargetLaneData,
  seams: createSeams('bench-target-lane'),
  sink: {
    append: ({ codec, rawLength, payload }) => {
      length += payload.length;
      return { pack: 'nowhere', offset: length - payload.length, storedLength: payload.length, rawLength, codec };
    },
    sync: async () => undefined,
    close: async () => undefined,
  },
  records: { read: () => Promise.reject(new Error('nothing is kept')), close: async () => undefined },
});

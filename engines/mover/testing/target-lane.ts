/** Target lane of the tests: one append-only file per thread as its pack. */
import { closeSync, fdatasync, openSync, readSync, writeSync } from 'node:fs';
import path from 'node:path';
import { promisify } from 'node:util';
import { workerData, parentPort, threadId } from 'node:worker_threads';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { runTargetLane, type TargetLaneData } from '../target/lane.ts';

export type TestTarget = { folder: string; syncDelayMs?: number };
const data = workerData as TargetLaneData;
const { folder, syncDelayMs } = data.laneData as TestTarget;
const pack = `${process.pid}-${threadId}`;
const fd = openSync(path.join(folder, pack), 'a');
let length = 0;

runTargetLane({
  port: parentPort!,
  data,
  seams: testSeams(),
  sink: {
    append: ({ codec, rawLength, payload }) => {
      const offset = length;
      length += writeSync(fd, payload);
      return { pack, offset, storedLength: payload.length, rawLength, codec };
    },
    sync: async () => {
      if (syncDelayMs) await new Promise((resolve) => setTimeout(resolve, syncDelayMs));
      await promisify(fdatasync)(fd);
    },
    close: async () => closeSync(fd),
  },
  records: {
    read: async (place) => {
      const from = openSync(path.join(folder, place.pack), 'r');
      const into = Buffer.alloc(place.storedLength);
      readSync(from, into, 0, into.length, place.offset);
      closeSync(from);
      return into;
    },
    close: async () => undefined,
  },
});

/** `node source-process.ts <socket, or host:port> <lanes> <model> <times>`: sends a disk so often; says the last summary as JSON. */
import { createSourcePool, type TransferOrder } from '../../engines/mover/source/pool.ts';
import { diskKey, restorePointId, runKey } from '../../schema/domain/ids.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import type { DiskModel } from './disk-model.ts';
import { endpointOf } from './endpoint.ts';

const [address, lanes, model, times] = process.argv.slice(2);
const { sizeBytes } = JSON.parse(model!) as DiskModel;
const pool = createSourcePool({
  laneCount: Number(lanes),
  laneEntry: new URL('./source-lane.ts', import.meta.url),
  seams: createSeams('bench-source'),
});
const disk = { run: runKey('bench0000000'), diskKey: diskKey('d0'), sizeBytes };
const order: TransferOrder = {
  access: { ...disk, identity: 'bench', writable: false, data: { via: 'simulated', model: model! }, changes: null },
  assignment: {
    ...disk,
    restorePointId: restorePointId('0'.repeat(32)),
    fence: 1,
    blockSize: 1024 * 1024,
    compression: 'balanced',
    mode: 'full',
    alsoRead: [],
    endpoint: endpointOf(address!),
  },
  signal: new AbortController().signal,
};
let summary = await pool.transfer(order);
for (let time = 1; time < Number(times); time += 1) summary = await pool.transfer(order);
await pool.close();
process.stdout.write(`${JSON.stringify(summary)}\n`);

/** `node target-process.ts <socket, or host:port> <lanes>`: a target that wants everything and keeps nothing; says "ready". */
import { startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import { windowCountOf } from '../../schema/domain/extents.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import { endpointOf } from './endpoint.ts';

const [address, lanes] = process.argv.slice(2);
await startMoverTarget({
  listen: endpointOf(address!),
  laneCount: Number(lanes),
  laneEntry: new URL('./target-lane.ts', import.meta.url),
  laneData: null,
  registrar: {
    begin: async (_, { sizeBytes }) => ({
      lowWater: 0,
      above: [],
      auditDue: false,
      windowCount: windowCountOf(sizeBytes),
    }),
    beginAudit: () => Promise.reject(new Error('no audit is due')),
    goOnAudit: () => Promise.reject(new Error('no audit is due')),
    offer: async (_connection, _block, digests) => Array.from({ length: digests.length / 32 }, () => 'want'),
    commit: async () => undefined,
    commitSame: async () => false,
    commitUntouched: async () => undefined,
    end: async () => undefined,
  },
  restoreSource: {
    begin: () => Promise.reject(new Error('nothing is kept')),
    resolve: () => Promise.reject(new Error('nothing is kept')),
    damaged: () => Promise.reject(new Error('nothing is kept')),
    end: async () => undefined,
  },
  seams: createSeams('bench-target'),
});
process.stdout.write('ready\n');

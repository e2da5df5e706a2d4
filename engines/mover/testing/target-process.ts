/** A target in a process of its own, to be killed: `node target-process.ts <folder>`; says "ready" on stdout. */
import path from 'node:path';
import { testSeams } from '../../../tests/fixtures/seams.ts';
import { startMoverTarget } from '../target/mover-target.ts';
import { MemoryRepository } from './memory-repository.ts';

const folder = process.argv[2]!;
const repository = new MemoryRepository(path.join(folder, 'ledger'));
await startMoverTarget({
  listen: { unix: path.join(folder, 'sock', 'mover') },
  laneCount: 2,
  laneEntry: new URL('./target-lane.ts', import.meta.url),
  laneData: { folder, syncDelayMs: 20 },
  registrar: repository,
  restoreSource: repository.restoreSource(0, 0),
  seams: testSeams(),
});
process.stdout.write('ready\n');

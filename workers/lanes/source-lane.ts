/** Thread entry: a source lane that opens disks through their hypervisor access. */
import { workerData } from 'node:worker_threads';
import { openReader } from '../../engines/hypervisors/open-reader.ts';
import { runSourceLane } from '../../engines/mover/source/lane.ts';
import { laneSeams, parent } from './lane-seams.ts';
import { clientEnd, type LaneSecurity } from './secure-ends.ts';

const seams = laneSeams('source-lane');
const security = workerData as LaneSecurity | null;
runSourceLane({ port: parent(), seams, openReader, secure: security ? clientEnd(security, seams) : undefined });

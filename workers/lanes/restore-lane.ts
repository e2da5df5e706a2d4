/** Thread entry: a restore lane that writes into prepared targets. */
import { workerData } from 'node:worker_threads';
import { runRestoreLane } from '../../engines/mover/restore-client/lane.ts';
import { openWriter } from '../../engines/restore/open-writer.ts';
import { laneSeams, parent } from './lane-seams.ts';
import { clientEnd, type LaneSecurity } from './secure-ends.ts';

const seams = laneSeams('restore-lane');
const security = workerData as LaneSecurity | null;
runRestoreLane({ port: parent(), seams, openWriter, secure: security ? clientEnd(security, seams) : undefined });

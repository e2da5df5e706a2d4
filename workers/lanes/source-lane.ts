/** Thread entry: a source lane that opens disks through their hypervisor access. */
import { openReader } from '../../engines/hypervisors/open-reader.ts';
import { runSourceLane } from '../../engines/mover/source/lane.ts';
import { laneSeams, parent } from './lane-seams.ts';

runSourceLane({ port: parent(), seams: laneSeams('source-lane'), openReader });

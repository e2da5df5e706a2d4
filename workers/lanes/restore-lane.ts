/** Thread entry: a restore lane that writes into prepared targets. */
import { runRestoreLane } from '../../engines/mover/restore-client/lane.ts';
import { openWriter } from '../../engines/restore/open-writer.ts';
import { laneSeams, parent } from './lane-seams.ts';

runRestoreLane({ port: parent(), seams: laneSeams('restore-lane'), openWriter });

/** The proxies of this machine: lane threads that read disks and send them, and that write restored ones. */
import { createRestoreActivities, createTargetActivities } from '../activities/restore/restore-activities.ts';
import { createRehearsalActivities, createTransferActivities } from '../activities/transfer/transfer-activities.ts';
import { brakesForRestore } from '../engines/hypervisors/brakes.ts';
import { createRestorePool } from '../engines/mover/restore-client/pool.ts';
import { createSourcePool } from '../engines/mover/source/pool.ts';
import type { ProxyConfig } from '../schema/domain/configuration.ts';
import { proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { Seams } from '../schema/domain/seams.ts';
import { clientEnd, type LaneSecurity } from './lanes/secure-ends.ts';
import { laneSecurityOf, loadMachine, stateLayout } from './runtime/config.ts';
import { slotsFor } from './runtime/slots.ts';
import { runWorkerProcess, type ServedQueue } from './runtime/worker-process.ts';

const sourceLane = new URL('./lanes/source-lane.ts', import.meta.url);
const restoreLane = new URL('./lanes/restore-lane.ts', import.meta.url);

/** Progress is looked at by people: a figure is at most so old. A cancelled transfer stops as fast. */
const PROGRESS_AGE_MS = 2000;

/** Hosts may change while a proxy runs. */
const brakesOf = async (folder: string) => brakesForRestore((await loadMachine(stateLayout()))?.hosts ?? [], folder);

function openProxy(
  { proxyId, slots, lanes, restoreFolders, ...depths }: ProxyConfig,
  laneData: LaneSecurity,
  seams: Seams,
) {
  const { clock } = seams;
  const pool = { laneCount: lanes, ...depths, laneData, seams };
  const source = createSourcePool({ ...pool, laneEntry: sourceLane });
  const restores = createRestorePool({ ...pool, laneEntry: restoreLane });
  const work: ServedQueue = {
    queue: proxyQueue(proxyId),
    activities: {
      ...createTransferActivities({ pool: source, clock }),
      ...createRestoreActivities({ pool: restores, clock }),
    },
    slots: slotsFor(slots),
    heartbeatThrottleMs: PROGRESS_AGE_MS,
  };
  const control: ServedQueue = {
    queue: proxyCtlQueue(proxyId),
    activities: {
      ...createRehearsalActivities(clientEnd(laneData, seams)),
      ...createTargetActivities({ allowedFolders: restoreFolders, brakesOf }),
    },
    slots: slotsFor(slots),
    graceMs: 10_000,
  };
  return { queues: [work, control], close: () => Promise.all([source.close(), restores.close()]) };
}

await runWorkerProcess({
  name: 'proxy',
  open: async ({ seams }) => {
    const layout = stateLayout();
    const machine = await loadMachine(layout);
    if (!machine?.proxies.length) return null;
    const proxies = machine.proxies.map((proxy) => openProxy(proxy, laneSecurityOf(machine, layout), seams));
    return {
      queues: () => proxies.flatMap(({ queues }) => queues),
      close: async () => void (await Promise.all(proxies.map(({ close }) => close()))),
    };
  },
});

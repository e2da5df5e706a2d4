/** The hypervisor hosts of this machine: their providers, and the guests behind the guest keeper. */
import { join } from 'node:path';
import { createCheckpointActivities } from '../activities/checkpoint/checkpoint-activities.ts';
import { createGuestActivities } from '../activities/guest/guest-activities.ts';
import { createInventoryActivities } from '../activities/inventory/inventory-activities.ts';
import { connectKeeper, type KeeperClient } from '../engines/guest/keeper/client.ts';
import type { StackLayout } from '../engines/stack/layout.ts';
import type { HypervisorProvider } from '../engines/hypervisors/provider.ts';
import type { HostConfig, MachineConfig } from '../schema/domain/configuration.ts';
import type { Capabilities } from '../schema/domain/hypervisor.ts';
import { hostCtlQueue, hostGuestQueue, hostUndoQueue } from '../schema/domain/queues.ts';
import type { Seams } from '../schema/domain/seams.ts';
import { loadMachine, stateLayout } from './runtime/config.ts';
import { createProvider } from './runtime/providers.ts';
import { slotsFor } from './runtime/slots.ts';
import { runWorkerProcess, type ServedQueue } from './runtime/worker-process.ts';

/** A checkpoint that was begun is ended: freeze to thaw is bounded by 10 s. */
const GRACE_MS = 12_000;

type Parts = { machine: MachineConfig; layout: StackLayout; keeper: KeeperClient; seams: Seams };

/** While it is not known, guests stay in the keeper's reach: one that is frozen must be thawed. */
async function quiesceOf(provider: HypervisorProvider): Promise<Capabilities['quiesce']> {
  try {
    return (await provider.capabilities()).quiesce;
  } catch {
    return 'agent';
  }
}

async function openHost(host: HostConfig, { machine, layout, keeper, seams }: Parts) {
  const stateFolder = layout.hostFolder(host.hostId);
  const provider = createProvider(host, { site: machine.site, stateFolder, keeper, seams });
  const quiesce = await quiesceOf(provider);
  const guests = quiesce === 'agent' ? keeper : null;
  const verbs = {
    ...createInventoryActivities({ provider }),
    ...createCheckpointActivities({ site: machine.site, provider, freezer: keeper.freezer }),
  };
  const scripts = createGuestActivities({ guests, quiesce, clock: seams.clock });
  const common = { slots: slotsFor(host.slots), graceMs: GRACE_MS };
  const queues: ServedQueue[] = [
    { queue: hostCtlQueue(host.hostId), activities: verbs, ...common },
    { queue: hostUndoQueue(host.hostId), activities: { ...verbs, ...scripts }, ...common },
    { queue: hostGuestQueue(host.hostId), activities: scripts, ...common },
  ];
  return { queues, close: () => provider.close() };
}

await runWorkerProcess({
  name: 'host',
  open: async ({ seams }) => {
    const layout = stateLayout();
    const machine = await loadMachine(layout);
    if (!machine?.hosts.length) return null;
    const keeper = connectKeeper({ socket: join(layout.runFolder, 'keeper.sock'), seams });
    const hosts = await Promise.all(machine.hosts.map((host) => openHost(host, { machine, layout, keeper, seams })));
    return {
      queues: () => hosts.flatMap(({ queues }) => queues),
      close: async () => {
        await Promise.all(hosts.map(({ close }) => close()));
        keeper.close();
      },
    };
  },
});

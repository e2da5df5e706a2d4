/**
 * The guest keeper's process. It reads the machine's configuration and its own ledgers, and needs nothing else that
 * runs: no Temporal, no database. Guests are thawed before it exits.
 */
import { join } from 'node:path';
import { startGuestKeeper } from '../engines/guest/keeper/guest-keeper.ts';
import type { KeptVm } from '../engines/guest/keeper/protocol.ts';
import type { MachineConfig } from '../schema/domain/configuration.ts';
import { messageOf } from '../schema/domain/errors.ts';
import { loadMachine, stateLayout } from './runtime/config.ts';
import { createSeams } from './runtime/seams.ts';

const layout = stateLayout();

/** The QEMU VMs of all hosts of this machine; none when there is no configuration yet. */
async function loadVms(): Promise<KeptVm[]> {
  const machine = await loadMachine(layout);
  if (!machine) return [];
  return machine.hosts.flatMap((host) =>
    host.provider === 'qemu' ? host.vms.map((vm) => keptVm(vm, machine.site)) : [],
  );
}

type QemuVm = Extract<MachineConfig['hosts'][number], { provider: 'qemu' }>['vms'][number];
const keptVm = ({ vmId, qmp, agent }: QemuVm, site: MachineConfig['site']): KeptVm =>
  agent === undefined ? { vmId, qmp, site } : { vmId, qmp, agent, site };

const seams = createSeams('keeper');
const socket = join(layout.runFolder, 'keeper.sock');
const keeper = await startGuestKeeper({
  socket,
  stateFolder: join(layout.folder, 'keeper'),
  loadVms,
  seams,
});

let stopping = false;
async function stop(why: string): Promise<void> {
  if (stopping) return;
  stopping = true;
  seams.log.info('stops', { why });
  const silent = await keeper.stop();
  if (silent.length > 0) seams.log.error('GUESTS MAY STILL BE FROZEN: they did not answer', { vms: silent });
  process.exit(silent.length > 0 ? 1 : 0);
}
process.on('SIGTERM', () => void stop('SIGTERM'));
process.on('SIGINT', () => void stop('SIGINT'));
process.on('disconnect', () => void stop('parent is gone'));
process.on('SIGHUP', () => {
  keeper.reload().catch((error: unknown) => seams.log.error('cannot reload', { error: messageOf(error) }));
});
seams.log.info('listens', { socket });
process.send?.({ ready: true });

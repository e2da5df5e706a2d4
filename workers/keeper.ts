/**
 * The guest keeper's process. It reads the machine's configuration and its own ledgers, and needs nothing else that
 * runs: no Temporal, no database. Guests are thawed before it exits.
 */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { startGuestKeeper } from '../engines/guest/keeper/guest-keeper.ts';
import type { KeptVm } from '../engines/guest/keeper/protocol.ts';
import type { MachineConfig } from '../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../schema/domain/errors.ts';
import { createSeams } from './runtime/seams.ts';

const stateFolder = process.env['TIDEMARK_STATE'];
if (!stateFolder) throw new TidemarkError('BAD_CONFIG', 'TIDEMARK_STATE does not name the state folder');

/** The QEMU VMs of all hosts of this machine; none when there is no configuration yet. */
async function loadVms(): Promise<KeptVm[]> {
  const path = join(stateFolder!, 'config/machine.json');
  const text = await readFile(path, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw new TidemarkError('BAD_CONFIG', `cannot read ${path}: ${error.message}`, { file: path }, error);
  });
  if (text === null) return [];
  try {
    const machine = JSON.parse(text) as MachineConfig;
    return machine.hosts.flatMap((host) =>
      host.provider === 'qemu' ? host.vms.map((vm) => keptVm(vm, machine.site)) : [],
    );
  } catch (error) {
    throw new TidemarkError('BAD_CONFIG', `${path} is damaged: ${messageOf(error)}`, { file: path }, error);
  }
}

type QemuVm = Extract<MachineConfig['hosts'][number], { provider: 'qemu' }>['vms'][number];
const keptVm = ({ vmId, qmp, agent }: QemuVm, site: MachineConfig['site']): KeptVm =>
  agent === undefined ? { vmId, qmp, site } : { vmId, qmp, agent, site };

const seams = createSeams('keeper');
const keeper = await startGuestKeeper({
  socket: join(stateFolder, 'run/keeper.sock'),
  stateFolder: join(stateFolder, 'keeper'),
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
seams.log.info('listens', { socket: join(stateFolder, 'run/keeper.sock') });
process.send?.({ ready: true });

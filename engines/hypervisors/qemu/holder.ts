/** The process that holds a checkpoint: the VM's own QEMU, or a storage daemon when the VM is off. */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Endpoint } from '../../../schema/domain/hypervisor.ts';
import { connectQmp } from '../../qmp/client.ts';
import { findStorageDaemon } from '../storage-daemon.ts';
import { type Context, daemonFolderOf, holderNode, nameOf, serverSocketOf } from './context.ts';
import { ensureExports, type ExportSpec } from './exports.ts';
import { startServer } from './nbd-server.ts';
import { type Commands, type QmpJob } from './qmp-shapes.ts';
import type { RunState } from './run-states.ts';

/** Of a daemon the monitor lasts as long as `use`; it has no events. VM_OFF: the holder does not run. */
export async function withHolder<T>(
  context: Context,
  state: RunState,
  use: (monitor: Commands) => Promise<T>,
): Promise<T> {
  if (state.heldBy === 'vm') return await use(context.monitorOf(state.vm.vmId));
  const daemon = await findStorageDaemon(daemonFolderOf(context, state.run));
  if (!daemon)
    throw new TidemarkError('VM_OFF', `the storage daemon of run ${state.run} does not run any more`, {
      run: state.run,
    });
  const { clock } = context.seams;
  const owner = `the storage daemon of run ${state.run}`;
  const connection = await connectQmp({ socket: daemon.monitorSocket, owner, now: () => clock.now() });
  try {
    return await use(connection);
  } finally {
    connection.close();
  }
}

const living = new Set(['created', 'running', 'paused', 'ready', 'standby']);

/**
 * Null while the point in time is held on every disk, else what is missing. It is never held again once it was let go:
 * then exports show bytes of another time.
 */
export async function whyNotHeld(context: Context, state: RunState): Promise<string | null> {
  try {
    return await withHolder(context, state, async (monitor) => {
      if (state.heldBy === 'daemon') return null;
      const jobs = await monitor.execute<QmpJob[]>('query-jobs');
      const held = new Set(jobs.filter(({ status }) => living.has(status)).map(({ id }) => id));
      const gone = state.disks.find(({ index }) => !held.has(nameOf(context, state.run, 'job', index)));
      return gone ? `the backup job of disk ${gone.facts.diskKey} is gone` : null;
    });
  } catch (error) {
    if (errorCodeOf(error) === 'VM_NOT_FOUND') return 'the VM is not of this host any more';
    if (errorCodeOf(error) !== 'VM_OFF') throw error;
    return state.heldBy === 'vm' ? 'the VM was stopped or killed' : 'the storage daemon was ended or killed';
  }
}

export function exportsOf(context: Context, state: RunState): ExportSpec[] {
  const { run, heldBy } = state;
  return state.disks.map((disk) => {
    const node = holderNode(state, disk);
    const tracked = disk.verdict.use === 'changes' && disk.base !== null;
    return {
      id: nameOf(context, run, 'exp', disk.index),
      node: heldBy === 'vm' ? nameOf(context, run, 'flc', disk.index) : node,
      name: disk.facts.diskKey,
      bitmap: tracked ? { node, name: disk.base! } : null,
    };
  });
}

/** Serves all disks of the checkpoint; what is served already stays. */
export async function serve(context: Context, state: RunState): Promise<void> {
  await withHolder(context, state, async (monitor) => {
    if (state.heldBy === 'vm') await startServer(context, state, monitor);
    await ensureExports(monitor, exportsOf(context, state));
  });
}

/** Null: the daemon that held it is gone. */
export async function endpointOf(context: Context, state: RunState): Promise<Endpoint | null> {
  if (state.heldBy === 'vm') return { unix: serverSocketOf(context, state.run) };
  const daemon = await findStorageDaemon(daemonFolderOf(context, state.run));
  return daemon ? { unix: daemon.nbdSocket } : null;
}

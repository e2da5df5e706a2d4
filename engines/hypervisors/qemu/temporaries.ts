/** Ends what was made for one checkpoint: exports, server, jobs, nodes, scratch files. Already gone is success. */
import { rm } from 'node:fs/promises';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { VmRef } from '../../../schema/domain/hypervisor.ts';
import type { RunKey } from '../../../schema/domain/ids.ts';
import { endStorageDaemon } from '../storage-daemon.ts';
import { type Context, daemonFolderOf, serverSocketOf } from './context.ts';
import { removeExports, stopServer } from './exports.ts';
import { isOfRun } from './holder.ts';
import { type Commands, executeUnlessGone, type QmpJob, queryNodes, refusedWith, untilTrue } from './qmp-shapes.ts';
import { removeScratch } from './scratch.ts';

/** `heldBy` null: not known, both are looked at. UNREACHABLE: the VM's monitor cannot be asked; nothing is forgotten then. */
export async function endTemporaries(
  context: Context,
  run: RunKey,
  vm: VmRef,
  heldBy: 'vm' | 'daemon' | null,
): Promise<void> {
  if (heldBy !== 'vm') {
    const folder = daemonFolderOf(context, run);
    await endStorageDaemon(folder, context.seams.clock);
    await rm(folder, { recursive: true, force: true });
  }
  if (heldBy !== 'daemon') await endOnVm(context, run, vm);
  const ledger = await context.ledger();
  const entries = ledger.list().filter(({ artifact }) => artifact.run === run && artifact.kind === 'temporary');
  await ledger.remove(entries.map(({ artifact }) => artifact));
}

async function endOnVm(context: Context, run: RunKey, vm: VmRef): Promise<void> {
  // A VM that is off, or not of this host any more, holds nothing.
  const isHere = context.host.vms.some(({ vmId }) => vmId === vm.vmId);
  if (isHere)
    await endInVm(context, run, context.monitorOf(vm.vmId)).catch((error: unknown) => {
      if (errorCodeOf(error) !== 'VM_OFF') throw error;
    });
  await rm(serverSocketOf(context, run), { force: true });
  await removeScratch(context.host.scratch, context.site, run);
}

async function endInVm(context: Context, run: RunKey, monitor: Commands): Promise<void> {
  const { clock } = context.seams;
  await removeExports(monitor, isOfRun(context, run, ['exp']), clock);
  await stopServer(monitor, serverSocketOf(context, run));
  await endJobs(context, run, monitor);
  const isNode = isOfRun(context, run, ['flc']);
  for (const { 'node-name': node } of (await queryNodes(monitor)).filter((one) => isNode(one['node-name'])))
    await untilTrue(clock, `removing node ${node}`, () => removeNode(monitor, node));
}

/** The normal end of a job that only keeps what is overwritten. */
export async function endJobs(context: Context, run: RunKey, monitor: Commands): Promise<void> {
  const isJob = isOfRun(context, run, ['job']);
  const ours = async (): Promise<QmpJob[]> =>
    (await monitor.execute<QmpJob[]>('query-jobs')).filter(({ id }) => isJob(id));
  const there = await ours();
  for (const { id } of there) await executeUnlessGone(monitor, 'job-cancel', { id }, /not found|cannot accept command/);
  if (there.length > 0)
    await untilTrue(context.seams.clock, 'ending backup jobs', async () => (await ours()).length === 0);
}

/** False: a job that has just ended still holds it. */
async function removeNode(monitor: Commands, node: string): Promise<boolean> {
  try {
    await executeUnlessGone(monitor, 'blockdev-del', { 'node-name': node }, /Failed to find node/);
    return true;
  } catch (error) {
    if (refusedWith(error, /in use/)) return false;
    throw error;
  }
}

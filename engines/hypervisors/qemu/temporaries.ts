/** Ends what was made for one checkpoint: exports, server, jobs, nodes, scratch files. Already gone is success. */
import { rm } from 'node:fs/promises';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RunKey } from '../../../schema/domain/ids.ts';
import { endStorageDaemon } from '../storage-daemon.ts';
import { type Context, daemonFolderOf, isOfRun, serverSocketOf } from './context.ts';
import { removeExports } from './exports.ts';
import { stopServer } from './nbd-server.ts';
import { type Commands, executeUnlessGone, type QmpJob, queryNodes, refusedWith, untilTrue } from './qmp-shapes.ts';
import { hasNoMonitor, monitorOfRun } from './run-monitor.ts';
import type { RunState } from './run-states.ts';
import { isOpenElsewhere, scratchOf } from './scratch.ts';

/** `heldBy` null: not known, both are looked at. */
export type Held = Pick<RunState, 'run' | 'vm' | 'monitorSocket'> & { heldBy: RunState['heldBy'] | null };

/**
 * UNREACHABLE: the VM's monitor cannot be asked. PLATFORM_BUSY: nor is there one, and the VM holds it all the same.
 * Nothing is forgotten then.
 */
export async function endTemporaries(context: Context, held: Held): Promise<void> {
  const { run, heldBy } = held;
  if (heldBy !== 'vm') {
    const folder = daemonFolderOf(context, run);
    await endStorageDaemon(folder, context.seams.clock);
    await rm(folder, { recursive: true, force: true });
  }
  if (heldBy !== 'daemon') await endOnVm(context, held);
  const ledger = await context.ledger();
  const entries = ledger.list().filter(({ artifact }) => artifact.run === run && artifact.kind === 'temporary');
  await ledger.remove(entries.map(({ artifact }) => artifact));
}

async function endOnVm(context: Context, held: Held): Promise<void> {
  const { run } = held;
  const { host, site } = context;
  const ended = await endInVm(context, run, monitorOfRun(context, held)).catch((error: unknown): string[] => {
    if (!hasNoMonitor(error)) throw error;
    return [];
  });
  const scratch = await scratchOf(host.scratch, site, run);
  for (const { name, file } of scratch)
    // That nobody listens, or that another VM does, does not say that this one is off.
    if (!ended.includes(name) && (await isOpenElsewhere(file))) throw stillHeld(context, held, file);
  await rm(serverSocketOf(context, run), { force: true });
  for (const { file } of scratch) await rm(file, { force: true });
}

function stillHeld({ host }: Context, { run, vm: { vmId }, monitorSocket }: Held, file: string): TidemarkError {
  const config = host.vms.find((one) => one.vmId === vmId);
  const socket = monitorSocket ?? config?.qmp ?? null;
  const at = socket === null ? '' : ` (monitor ${socket})`;
  const mend = config ? 'correct its monitor in the configuration' : 'put the VM back into the configuration';
  return new TidemarkError(
    'PLATFORM_BUSY',
    `vm ${config?.name ?? vmId}${at} cannot be asked to end the checkpoint of run ${run}, ` +
      `and a process still holds its scratch file ${file}: ${mend}, or shut it down`,
    { run, vmId, file, socket },
  );
}

/** Names of the scratch nodes that it closed. */
async function endInVm(context: Context, run: RunKey, monitor: Commands): Promise<string[]> {
  const { clock } = context.seams;
  await removeExports(monitor, isOfRun(context, run, ['exp']), clock);
  // The guest first: what others do to the server keeps no job at work.
  await endJobs(context, run, monitor);
  await stopServer(context, run, monitor);
  const isNode = isOfRun(context, run, ['flc']);
  const nodes = (await queryNodes(monitor)).map((node) => node['node-name']).filter(isNode);
  for (const node of nodes) await untilTrue(clock, `removing node ${node}`, () => removeNode(monitor, node));
  return nodes;
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

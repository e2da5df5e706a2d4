/** The NBD server of a checkpoint: QEMU has one per process, so whose it is has to be known before it is used or ended. */
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { parseArtifactName, type RunKey } from '../../../schema/domain/ids.ts';
import type { LedgerEntry } from '../ledger.ts';
import { type Context, isOfRun, nameOf, serverSocketOf } from './context.ts';
import { CONNECTIONS_PER_DISK, queryExports } from './exports.ts';
import { type Commands, executeUnlessGone, queryNodes, refusedWith } from './qmp-shapes.ts';
import type { RunState } from './run-states.ts';

/**
 * After the scratch nodes are there. PLATFORM_BUSY: the process has a server that is not ours. Ours, already running, is
 * success; without its socket, which a cleaner of temporary files may have removed, it is started anew.
 */
export async function startServer(
  context: Context,
  { run, disks }: Pick<RunState, 'run' | 'disks'>,
  monitor: Commands,
): Promise<void> {
  const socket = serverSocketOf(context, run);
  const start = async (): Promise<void> => {
    await rm(socket, { force: true });
    const addr = { type: 'unix', data: { path: socket } };
    await monitor.execute('nbd-server-start', { addr, 'max-connections': CONNECTIONS_PER_DISK * disks.length });
  };
  if (!(await isServing(socket)))
    await start().catch(async (error: unknown) => {
      if (!refusedWith(error, /already running/)) throw error;
      if (!(await startedFor(context, run, monitor)))
        throw busy('the VM has an NBD server that is not ours (libvirt, a migration, another site)');
      await end(context, monitor);
      await start();
    });
  const entry = await entryOf(context, run);
  if (entry?.state === 'intent') await (await context.ledger()).made([entry.artifact]);
}

/** PLATFORM_BUSY: somebody else exports through it. It takes its exports and connections along. */
export async function stopServer(context: Context, run: RunKey, monitor: Commands): Promise<void> {
  const socket = serverSocketOf(context, run);
  if ((await isServing(socket)) || (await startedFor(context, run, monitor))) await end(context, monitor);
  await rm(socket, { force: true });
}

async function end({ site }: Context, monitor: Commands): Promise<void> {
  const others = (await queryExports(monitor)).filter(
    ({ id, type }) => type === 'nbd' && parseArtifactName(id)?.site !== site,
  );
  if (others.length > 0)
    throw busy(`others export through our NBD server of the VM (${others.map(({ id }) => id).join(', ')})`);
  await executeUnlessGone(monitor, 'nbd-server-stop', {}, /not running/);
}

const busy = (message: string): TidemarkError => new TidemarkError('PLATFORM_BUSY', message);

/** Told without its socket: the ledger says that it was started, the scratch nodes that the VM was not since then. */
async function startedFor(context: Context, run: RunKey, monitor: Commands): Promise<boolean> {
  if ((await entryOf(context, run))?.state !== 'made') return false;
  const isNode = isOfRun(context, run, ['flc']);
  return (await queryNodes(monitor)).some((node) => isNode(node['node-name']));
}

async function entryOf(context: Context, run: RunKey): Promise<LedgerEntry | undefined> {
  const name = nameOf(context, run, 'nbd');
  return (await context.ledger()).list().find(({ artifact }) => artifact.platformName === name);
}

const isServing = (socket: string): Promise<boolean> =>
  new Promise((resolve) => {
    const probe = connect(socket);
    const answer = (serving: boolean): void => {
      probe.destroy();
      resolve(serving);
    };
    probe.once('connect', () => answer(true)).once('error', () => answer(false));
  });

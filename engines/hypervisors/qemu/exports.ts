/** NBD of a checkpoint: QEMU has one server per process, so whose it is has to be known before it is used or ended. */
import { rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import { type Commands, executeUnlessGone, type QmpExport, refusedWith, untilTrue } from './qmp-shapes.ts';

export const CONNECTIONS_PER_DISK = 32;
/** What the operating system allows for the path of a Unix socket. */
const SOCKET_PATH_BYTES = 107;

export function assertSocketPathFits(socket: string): void {
  if (Buffer.byteLength(socket) <= SOCKET_PATH_BYTES) return;
  throw new TidemarkError('BAD_CONFIG', `the path of socket ${socket} is too long; choose a shorter scratch folder`);
}

/** PLATFORM_BUSY: the process has a server that is not ours. Ours, already running, is success. */
export async function startServer(monitor: Commands, socket: string, maxConnections: number): Promise<void> {
  if (await isServing(socket)) return;
  await rm(socket, { force: true });
  const addr = { type: 'unix', data: { path: socket } };
  await monitor.execute('nbd-server-start', { addr, 'max-connections': maxConnections }).catch((error: unknown) => {
    if (!refusedWith(error, /already running/)) throw error;
    throw new TidemarkError(
      'PLATFORM_BUSY',
      'the VM has an NBD server that is not ours (libvirt, a migration, another site)',
    );
  });
}

/** Only a server on our own socket is ours to end; it takes its exports and connections along. */
export async function stopServer(monitor: Commands, socket: string): Promise<void> {
  if (await isServing(socket)) await executeUnlessGone(monitor, 'nbd-server-stop', {}, /not running/);
  await rm(socket, { force: true });
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

export type ExportSpec = { id: string; node: string; name: string; bitmap: { node: string; name: string } | null };

export const queryExports = (monitor: Commands): Promise<QmpExport[]> =>
  monitor.execute<QmpExport[]>('query-block-exports');

/** Those that are there already stay as they are. */
export async function ensureExports(monitor: Commands, specs: readonly ExportSpec[]): Promise<void> {
  const there = new Set((await queryExports(monitor)).map(({ id }) => id));
  for (const { id, node, name, bitmap } of specs) {
    if (there.has(id)) continue;
    const bitmaps = bitmap ? { bitmaps: [bitmap] } : {};
    await monitor.execute('block-export-add', { type: 'nbd', id, 'node-name': node, name, ...bitmaps });
  }
}

/** Ends connections, too; resolves when the exports are gone, so that their bitmaps are free. */
export async function removeExports(monitor: Commands, isOurs: (id: string) => boolean, clock: Clock): Promise<void> {
  const ours = async (): Promise<QmpExport[]> => (await queryExports(monitor)).filter(({ id }) => isOurs(id));
  const there = await ours();
  for (const { id } of there)
    await executeUnlessGone(monitor, 'block-export-del', { id, mode: 'hard' }, /is not found/);
  if (there.length > 0) await untilTrue(clock, 'ending exports', async () => (await ours()).length === 0);
}

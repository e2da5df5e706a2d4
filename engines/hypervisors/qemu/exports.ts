/** NBD exports of a checkpoint. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import { type Commands, executeUnlessGone, type QmpExport, untilTrue } from './qmp-shapes.ts';

export const CONNECTIONS_PER_DISK = 32;
/** What the operating system allows for the path of a Unix socket. */
const SOCKET_PATH_BYTES = 107;

export function assertSocketPathFits(socket: string): void {
  if (Buffer.byteLength(socket) <= SOCKET_PATH_BYTES) return;
  throw new TidemarkError('BAD_CONFIG', `the path of socket ${socket} is too long; choose a shorter scratch folder`);
}

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

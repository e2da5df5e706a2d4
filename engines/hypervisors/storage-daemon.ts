/**
 * `qemu-storage-daemon` processes: the way to read images of VMs that do not run. The daemon is detached and outlives
 * the worker that started it; its folder (pid file, sockets) is all that is needed to find and end it.
 */
import { execFile } from 'node:child_process';
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { Clock } from '../../schema/domain/seams.ts';

const run = promisify(execFile);

export type StorageDaemonSpec = {
  /** Absolute; made if need be, readable by its owner only. One daemon per folder. */
  folder: string;
  /** `--blockdev` arguments as objects, in order (children before what stands on them). */
  blockdevs: readonly Record<string, unknown>[];
  /** `id`: letters, digits, `-`. Bitmaps become contexts `qemu:dirty-bitmap:NAME`. */
  exports: readonly {
    id: string;
    node: string;
    name: string;
    writable: boolean;
    bitmaps?: readonly { node: string; name: string }[];
  }[];
  maxConnections: number;
};

/** A running daemon: `nbdSocket` serves the exports, `monitorSocket` speaks QMP (one client at a time). */
export type StorageDaemon = { pid: number; nbdSocket: string; monitorSocket: string };

const START_TIMEOUT_MS = 30_000;
/** After SIGTERM the daemon writes bitmaps back; it is killed when that takes longer. */
const END_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
/** What the operating system allows for the path of a Unix socket. */
const SOCKET_PATH_BYTES = 107;

const pidFileOf = (folder: string): string => join(folder, 'pid');
const nbdSocketOf = (folder: string): string => join(folder, 'nbd.sock');
const monitorSocketOf = (folder: string): string => join(folder, 'qmp.sock');

/**
 * Resolves when the exports can be reached. With a daemon running in the folder already, that one is returned as it is.
 * IMAGE_IN_USE: another process holds the lock of an image. MISSING_TOOL, BAD_CONFIG (path too long), HYPERVISOR_ERROR.
 */
export async function startStorageDaemon(spec: StorageDaemonSpec): Promise<StorageDaemon> {
  const running = await findStorageDaemon(spec.folder);
  if (running) return running;
  await mkdir(spec.folder, { recursive: true, mode: 0o700 });
  if (Buffer.byteLength(monitorSocketOf(spec.folder)) > SOCKET_PATH_BYTES)
    throw new TidemarkError('BAD_CONFIG', `the path of folder ${spec.folder} is too long for the sockets in it`);
  try {
    // With --daemonize the parent ends when the exports are up, or says on stderr why not.
    await run('qemu-storage-daemon', argumentsOf(spec), { timeout: START_TIMEOUT_MS, cwd: spec.folder });
  } catch (error) {
    throw startFailure(spec.folder, error);
  }
  const daemon = await findStorageDaemon(spec.folder);
  if (!daemon)
    throw new TidemarkError('HYPERVISOR_ERROR', `qemu-storage-daemon of ${spec.folder} ended just after its start`);
  return daemon;
}

function argumentsOf(spec: StorageDaemonSpec): string[] {
  const json = (value: unknown): string => JSON.stringify(value);
  const server = { addr: { type: 'unix', path: nbdSocketOf(spec.folder) }, 'max-connections': spec.maxConnections };
  const exported = spec.exports.map(({ id, node, name, writable, bitmaps }) => ({
    type: 'nbd',
    id,
    'node-name': node,
    name,
    writable,
    ...(bitmaps ? { bitmaps } : {}),
  }));
  const monitor = `socket,id=monitor,server=on,wait=off,path=${monitorSocketOf(spec.folder).replaceAll(',', ',,')}`;
  const start = ['--daemonize', '--chardev', monitor, '--monitor', 'chardev=monitor'];
  const nodes = spec.blockdevs.flatMap((node) => ['--blockdev', json(node)]);
  const exports = exported.flatMap((one) => ['--export', json(one)]);
  return [...start, ...nodes, '--nbd-server', json(server), ...exports, '--pidfile', pidFileOf(spec.folder)];
}

function startFailure(folder: string, error: unknown): TidemarkError {
  if ((error as NodeJS.ErrnoException).code === 'ENOENT')
    return new TidemarkError('MISSING_TOOL', 'qemu-storage-daemon is not installed', { tool: 'qemu-storage-daemon' });
  const said = stderrOf(error) || messageOf(error);
  const locked = imageLockedIn(said);
  if (locked !== null)
    return new TidemarkError('IMAGE_IN_USE', `image ${locked} is held by another process`, { file: locked });
  return new TidemarkError('HYPERVISOR_ERROR', `qemu-storage-daemon in ${folder} did not start: ${said}`, {}, error);
}

/** What a tool that failed said, trimmed. */
export const stderrOf = (error: unknown): string => ((error as { stderr?: string }).stderr ?? '').trim();

/** The image that a QEMU tool could not lock, from what it said on stderr; null when that was not the reason. */
export function imageLockedIn(stderr: string): string | null {
  if (!/Failed to (?:get|lock)[^\n]*lock|Failed to lock/i.test(stderr)) return null;
  return /using the image \[(.+?)\]\?/.exec(stderr)?.[1] ?? 'of unknown name';
}

/** Null when none runs in this folder. */
export async function findStorageDaemon(folder: string): Promise<StorageDaemon | null> {
  const pid = Number((await readFile(pidFileOf(folder), 'utf8').catch(() => '')).trim());
  if (!Number.isSafeInteger(pid) || pid <= 1 || !(await isOurs(pid, folder))) return null;
  return { pid, nbdSocket: nbdSocketOf(folder), monitorSocket: monitorSocketOf(folder) };
}

/** A pid file outlives its process and numbers come again: the command line tells. A dead, unreaped process has none. */
async function isOurs(pid: number, folder: string): Promise<boolean> {
  const words = (await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '')).split('\0');
  return words.includes(pidFileOf(folder));
}

/** Ends the daemon of this folder, gently, then by force; none there is success. The folder itself stays. */
export async function endStorageDaemon(folder: string, clock: Clock): Promise<void> {
  const daemon = await findStorageDaemon(folder);
  if (!daemon) return;
  signal(daemon.pid, 'SIGTERM');
  for (let waitedMs = 0; await isOurs(daemon.pid, folder); waitedMs += POLL_MS) {
    if (waitedMs >= END_TIMEOUT_MS) signal(daemon.pid, 'SIGKILL');
    if (waitedMs >= 2 * END_TIMEOUT_MS)
      throw new TidemarkError('HYPERVISOR_ERROR', `qemu-storage-daemon ${daemon.pid} of ${folder} does not end`);
    await clock.sleep(POLL_MS);
  }
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

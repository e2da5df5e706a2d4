/**
 * A qcow2 target is written through qemu-storage-daemon: no qcow2 writer of ours. One daemon per image; it outlives the
 * worker that started it and is found by its command line, which names its socket: nothing has to be written down first.
 */
import { execFile } from 'node:child_process';
import { readdir, readFile, rename, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { connectNbd } from '../nbd/client.ts';
import { guarded, syncPath } from './files.ts';

const execute = promisify(execFile);
const START_TIMEOUT_MS = 30_000;
/** After SIGTERM it writes back what it holds; after a flush of ours that is nothing we need. */
const END_TIMEOUT_MS = 20_000;
const POLL_MS = 20;
export const EXPORT_NAME = 'target';

/** The virtual size is rounded up to 512 bytes by the format. */
export const imageBytesOf = (sizeBytes: number): number => Math.ceil(sizeBytes / 512) * 512;

/** Appears under its name only when it is whole, and durable. */
export async function createImage(file: string, making: string, sizeBytes: number): Promise<void> {
  await rm(making, { force: true });
  await runTool('qemu-img', ['create', '-q', '-f', 'qcow2', making, String(imageBytesOf(sizeBytes))], file);
  await guarded(making, () => syncPath(making));
  await rename(making, file);
}

/** Of an image that may be in use. STORAGE_ERROR: it is none, or cannot be read. */
export async function virtualSizeOf(file: string): Promise<number> {
  const told = await runTool('qemu-img', ['info', '-U', '--output=json', '-f', 'qcow2', file], file);
  return (JSON.parse(told) as { 'virtual-size': number })['virtual-size'];
}

/** Leaves a daemon that answers alone. STORAGE_ERROR, MISSING_TOOL: it does not come up. */
export async function ensureDaemon(file: string, socket: string): Promise<void> {
  if (await answers(socket)) return;
  await endDaemon(socket);
  await runTool('qemu-storage-daemon', daemonArguments(file, socket), file);
}

/** With --daemonize the command ends when the export is up, or says on stderr why not. */
const daemonArguments = (file: string, socket: string): string[] => [
  '--daemonize',
  '--blockdev',
  JSON.stringify({ driver: 'file', 'node-name': 'file0', filename: file }),
  '--blockdev',
  JSON.stringify({ driver: 'qcow2', 'node-name': 'image0', file: 'file0' }),
  '--nbd-server',
  serverArgument(socket),
  '--export',
  JSON.stringify({ type: 'nbd', id: 'target', 'node-name': 'image0', name: EXPORT_NAME, writable: true }),
];

const unixAddress = '{"addr":{"type":"unix","path":';
const serverArgument = (socket: string): string => `${unixAddress}${JSON.stringify(socket)}},"max-connections":4}`;

/** What it says on stdout. */
async function runTool(tool: string, args: string[], file: string): Promise<string> {
  try {
    return (await execute(tool, args, { timeout: START_TIMEOUT_MS })).stdout;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new TidemarkError('MISSING_TOOL', `${tool} is not installed`, { tool }, error);
    const said = (error as { stderr?: string }).stderr?.trim() ?? '';
    throw new TidemarkError('STORAGE_ERROR', `${tool} of image ${file}: ${said || messageOf(error)}`, { file }, error);
  }
}

async function answers(socket: string): Promise<boolean> {
  try {
    await (await connectNbd({ at: { unix: socket }, export: EXPORT_NAME })).close();
    return true;
  } catch {
    return false;
  }
}

/** Gone already is success. */
export async function endDaemon(socket: string): Promise<void> {
  const argument = serverArgument(socket);
  await endDaemons((given) => given === argument, socket);
  await rm(socket, { force: true });
}

/** Those whose sockets' paths begin so. Gone already is success. */
export async function endDaemonsBelow(prefix: string): Promise<void> {
  const beginning = `${unixAddress}${JSON.stringify(prefix).slice(0, -1)}`;
  await endDaemons((given) => given.startsWith(beginning), prefix);
}

/** By an argument of their command line. */
async function endDaemons(isTheirs: (argument: string) => boolean, socket: string): Promise<void> {
  for (let waitedMs = 0; ; waitedMs += POLL_MS) {
    const pids = await findDaemons(isTheirs);
    if (pids.length === 0) return;
    if (waitedMs > 2 * END_TIMEOUT_MS)
      throw new TidemarkError('STORAGE_ERROR', `qemu-storage-daemon ${pids.join(', ')} does not end`, { socket });
    for (const pid of pids) signal(pid, waitedMs < END_TIMEOUT_MS ? 'SIGTERM' : 'SIGKILL');
    await delay(POLL_MS);
  }
}

async function findDaemons(isTheirs: (argument: string) => boolean): Promise<number[]> {
  const found: number[] = [];
  for (const name of await readdir('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    const line = await readFile(`/proc/${name}/cmdline`, 'utf8').catch(() => '');
    if (line.split('\0').some(isTheirs)) found.push(Number(name));
  }
  return found;
}

function signal(pid: number, name: NodeJS.Signals): void {
  try {
    process.kill(pid, name);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

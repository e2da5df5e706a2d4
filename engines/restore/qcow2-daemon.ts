/** A qcow2 target is written through qemu-storage-daemon: no qcow2 writer of ours. One daemon per image, found by its pid file. */
import { execFile, spawn } from 'node:child_process';
import { readFile, rm } from 'node:fs/promises';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import { connectNbd } from '../nbd/client.ts';

const execute = promisify(execFile);
const START_TIMEOUT_MS = 10_000;
const pidFileOf = (socket: string): string => `${socket}.pid`;

/** The virtual size is rounded up to 512 bytes by the format. */
export async function createImage(file: string, sizeBytes: number): Promise<void> {
  try {
    await execute('qemu-img', ['create', '-q', '-f', 'qcow2', file, String(Math.ceil(sizeBytes / 512) * 512)]);
  } catch (error) {
    throw new TidemarkError('STORAGE_ERROR', `image ${file} cannot be made: ${messageOf(error)}`, { file }, error);
  }
}

/** Leaves a daemon that answers alone: it outlived the worker that started it. */
export async function ensureDaemon(file: string, socket: string): Promise<void> {
  if (await answers(socket)) return;
  await endDaemon(socket);
  const child = spawn(
    'qemu-storage-daemon',
    [
      '--blockdev',
      JSON.stringify({ driver: 'file', 'node-name': 'file0', filename: file }),
      '--blockdev',
      JSON.stringify({ driver: 'qcow2', 'node-name': 'image0', file: 'file0' }),
      '--nbd-server',
      `addr.type=unix,addr.path=${socket},max-connections=4`,
      '--export',
      'type=nbd,id=target,node-name=image0,name=target,writable=on',
      '--pidfile',
      pidFileOf(socket),
    ],
    { detached: true, stdio: 'ignore' },
  );
  child.unref();
  const failed = new Promise<never>((_, reject) => child.once('error', reject));
  await Promise.race([untilItAnswers(file, socket), failed]);
}

async function untilItAnswers(file: string, socket: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS; waitedMs += 50) {
    if (await answers(socket)) return;
    await delay(50);
  }
  await endDaemon(socket);
  throw new TidemarkError('STORAGE_ERROR', `qemu-storage-daemon does not serve ${file}`, { file, socket });
}

async function answers(socket: string): Promise<boolean> {
  try {
    await (await connectNbd({ at: { unix: socket }, export: 'target' })).close();
    return true;
  } catch {
    return false;
  }
}

/** SIGTERM lets it flush and close the image; gone already is success. */
export async function endDaemon(socket: string): Promise<void> {
  const pid = Number(await readFile(pidFileOf(socket), 'utf8').catch(() => ''));
  if (pid > 0 && (await isOurs(pid, socket))) {
    process.kill(pid, 'SIGTERM');
    for (let waitedMs = 0; waitedMs < START_TIMEOUT_MS && (await isOurs(pid, socket)); waitedMs += 20) await delay(20);
    if (await isOurs(pid, socket))
      throw new TidemarkError('STORAGE_ERROR', `qemu-storage-daemon ${pid} does not end`, { pid });
  }
  await rm(pidFileOf(socket), { force: true });
  await rm(socket, { force: true });
}

/** A process id is used again after a restart of the machine: only one that serves this socket is ours. */
async function isOurs(pid: number, socket: string): Promise<boolean> {
  const line = await readFile(`/proc/${pid}/cmdline`, 'utf8').catch(() => '');
  return line.includes('qemu-storage-daemon') && line.includes(socket);
}

/**
 * Which process a pid meant. Pids are given out again, so a process is named by pid, start time and boot; one that only
 * shares the pid is never signalled.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';

/** `startTicks`: field 22 of /proc/<pid>/stat (clock ticks since boot), and which boot that was. */
export type ProcessIdentity = { pid: number; startTicks: string };

/** After a restart of the machine services may well have the pids and ticks of the last time. */
const boot = readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').slice(0, 8);

/** Null when there is no such process, or only its unreaped rest. */
export function identityOf(pid: number): ProcessIdentity | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The name in parentheses may hold anything; fields count from behind it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const [state, startTicks] = [fields[0], fields[19]];
    if (state === 'Z' || state === 'X' || startTicks === undefined) return null;
    return { pid, startTicks: `${startTicks}-${boot}` };
  } catch {
    return null;
  }
}

export const isRunning = (identity: ProcessIdentity): boolean =>
  identityOf(identity.pid)?.startTicks === identity.startTicks;

/** Never another process than the one meant; gone already is fine. */
export function signalProcess(identity: ProcessIdentity, signal: NodeJS.Signals): void {
  if (!isRunning(identity)) return;
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error;
  }
}

export async function waitUntilGone(identity: ProcessIdentity, limitMs: number): Promise<boolean> {
  const deadline = performance.now() + limitMs;
  while (isRunning(identity)) {
    if (performance.now() > deadline) return false;
    await sleep(20);
  }
  return true;
}

/** SIGTERM, then SIGKILL when it takes longer than the limit. Resolves when the process is gone. */
export async function endProcess(identity: ProcessIdentity, graceMs: number): Promise<void> {
  signalProcess(identity, 'SIGTERM');
  if (await waitUntilGone(identity, graceMs)) return;
  signalProcess(identity, 'SIGKILL');
  await waitUntilGone(identity, 10_000);
}

/** All processes whose command line and environment, as lists of words, are accepted. Those of others show nothing. */
export function findProcesses(accept: (command: string[], environment: string[]) => boolean): ProcessIdentity[] {
  const wordsOf = (pid: string, what: string): string[] => {
    try {
      return readFileSync(`/proc/${pid}/${what}`, 'utf8').split('\0');
    } catch {
      return [];
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && accept(wordsOf(name, 'cmdline'), wordsOf(name, 'environ')))
    .map((name) => identityOf(Number(name)))
    .filter((identity) => identity !== null);
}

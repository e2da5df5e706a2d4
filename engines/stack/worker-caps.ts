/**
 * What the worker processes of a machine may take. Processors by affinity and niceness, from the start on. Memory by looking:
 * most of a mover's memory is outside of any heap that Node could bound, so one that has too much is started anew.
 */
import { readFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import type { MachineConfig, WorkerCaps } from '../../schema/domain/configuration.ts';
import type { ChildState } from './stack-file.ts';

/** Null: none for this worker, nothing applied yet, or a file that the worker itself will complain of. */
export async function capsOf(machineFile: string, name: string): Promise<WorkerCaps | null> {
  try {
    const { workers } = JSON.parse(await readFile(machineFile, 'utf8')) as MachineConfig;
    return new Map<string, WorkerCaps>(Object.entries(workers ?? {})).get(name) ?? null;
  } catch {
    return null;
  }
}

/** The command that starts `command` within these bounds. */
export function capped(
  command: string,
  args: readonly string[],
  caps: WorkerCaps | null,
  cpuCount: number = cpus().length,
): { command: string; args: string[] } {
  const line = [command, ...args];
  // The last ones: what the system does for everybody is done on the first.
  if (caps?.cpus != null && caps.cpus < cpuCount)
    line.unshift('taskset', '--cpu-list', `${cpuCount - caps.cpus}-${cpuCount - 1}`);
  if (caps?.nice != null && caps.nice > 0) line.unshift('nice', '-n', String(caps.nice));
  return { command: line[0]!, args: line.slice(1) };
}

/** Resident memory of a process, bytes; null when it is gone. */
export async function residentBytes(pid: number): Promise<number | null> {
  const text = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  const [, kib] = /^VmRSS:\s+(\d+) kB$/m.exec(text) ?? [];
  return kib === undefined ? null : Number(kib) * 1024;
}

/** Of these processes, those that take more memory than they may; none that is only just starting or ending. */
export async function overMemory<Name extends string>(
  machineFile: string,
  children: readonly { name: Name; pid: number | null; state: ChildState }[],
): Promise<{ name: Name; bytes: number; most: number }[]> {
  const over: { name: Name; bytes: number; most: number }[] = [];
  for (const { name, pid, state } of children) {
    const most = (await capsOf(machineFile, name))?.memoryBytes ?? null;
    if (most === null || pid === null || state !== 'ready') continue;
    const bytes = await residentBytes(pid);
    if (bytes !== null && bytes > most) over.push({ name, bytes, most });
  }
  return over;
}

/** The anonymous memory of processes while something goes on: what benches of memory measure and how they judge it. */
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';

const SAMPLE_MS = 50;
/** Between the smallest disk and the largest: garbage is collected when it likes, so some difference is chance. */
export const MOST_GROWTH = 1.5;

export async function anonymousMib(pid: number): Promise<number> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8').catch(() => '');
  return Number(/RssAnon:\s+(\d+) kB/.exec(status)?.[1] ?? 0) / 1024;
}

/** The highest of each process until `end` settles, MiB, in the order of `pids`. */
export async function peaksUntil(end: Promise<unknown>, pids: readonly number[]): Promise<number[]> {
  const peaks = pids.map(() => 0);
  const late = (): Promise<'late'> => sleep(SAMPLE_MS, 'late' as const);
  while ((await Promise.race([end, late()])) === 'late')
    for (const [i, pid] of pids.entries()) peaks[i] = Math.max(peaks[i]!, await anonymousMib(pid));
  return peaks;
}

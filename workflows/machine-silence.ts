/** Whether a machine is there, by the signs its workers give, and the words for waiting for it. */
import { controlQueue, machineOfQueue } from '../schema/domain/queues.ts';
import { say } from './say.ts';

/** Milliseconds since a worker of it was last seen; null: none is known. "unknown": nobody could say. */
export type Silence = number | null | 'unknown';

/** A worker polls at least each minute; less is no silence. */
const SILENT_MS = 65_000;

export async function silenceOf(queue: string): Promise<Silence> {
  try {
    const { silentMs } = await say('probeQueue', { queue: controlQueue, summary: machineOfQueue(queue) })({ queue });
    return silentMs;
  } catch {
    // Saying what is waited for is never a reason to stop waiting; a cancellation meets the work itself.
    return 'unknown';
  }
}

export const isSilent = (silence: Silence): boolean =>
  silence === null || (silence !== 'unknown' && silence >= SILENT_MS);

export function waitText(queue: string, sinceMs: number, silence: Silence): string {
  const waits = `waits for ${machineOfQueue(queue)}`;
  if (typeof silence === 'number' && isSilent(silence)) return `${waits}, silent since ${time(Date.now() - silence)}`;
  const why = silence === null ? ': no worker of it is known' : silence === 'unknown' ? '' : ': it is there, and busy';
  return `${waits} since ${time(sinceMs)}${why}`;
}

const time = (ms: number): string => `${new Date(ms).toISOString().slice(0, 19)}Z`;

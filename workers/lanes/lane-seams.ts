/** Seams of a lane thread: the process's own clock and randomness, and a log that names the lane. */
import { parentPort, threadId } from 'node:worker_threads';
import type { Seams } from '../../schema/domain/seams.ts';
import { createSeams } from '../runtime/seams.ts';

export const laneSeams = (kind: string): Seams => createSeams(`${kind}-${threadId}`);

/** Lane entries are started as threads only. */
export function parent(): NonNullable<typeof parentPort> {
  if (!parentPort) throw new Error('a lane entry runs in a worker thread');
  return parentPort;
}

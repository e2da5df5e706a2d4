/** A lane thread and its port, replaced by its owner when it dies. */
import { Worker } from 'node:worker_threads';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { type Handlers, openPortCalls, type PortCalls } from './port-calls.ts';

export type LaneThread = { calls: PortCalls; terminate: () => Promise<void> };

/** `onExit`: once, with why; every call waiting then fails with TRANSFER_FAILED and details.crashed. */
export function startLaneThread(
  entry: URL,
  workerData: unknown,
  options: { handlers?: Handlers; onNotice?: (name: string, value: unknown) => void; onExit(error: Error): void },
): LaneThread {
  const worker = new Worker(entry, { workerData });
  const calls = openPortCalls(worker, options.handlers ?? {}, options.onNotice);
  let why: unknown;
  worker.on('error', (error) => {
    why = error;
  });
  worker.on('exit', (exitCode) => {
    const text = why instanceof Error ? why.message : `exit code ${exitCode}`;
    const error = new TidemarkError(
      'TRANSFER_FAILED',
      `lane thread ended: ${text}`,
      { crashed: true, lost: true },
      why,
    );
    calls.fail(error);
    options.onExit(error);
  });
  return { calls, terminate: async () => void (await worker.terminate()) };
}

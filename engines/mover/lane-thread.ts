/** A lane thread and its port, replaced by its owner when it dies. */
import { Worker } from 'node:worker_threads';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { type Handlers, openPortCalls, type PortCalls } from './port-calls.ts';

export type LaneThread = {
  calls: PortCalls;
  terminate: () => Promise<void>;
  /** As if it had ended, because of this: one that hangs in the system cannot be waited for. */
  giveUp: (why: string) => void;
};

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
  let isOver = false;
  const end = (text: string): void => {
    if (isOver) return;
    isOver = true;
    const message = `lane thread ended: ${text}`;
    const error = new TidemarkError('TRANSFER_FAILED', message, { crashed: true, lost: true }, why);
    calls.fail(error);
    options.onExit(error);
  };
  worker.on('exit', (exitCode) => end(why instanceof Error ? why.message : `exit code ${exitCode}`));
  const giveUp = (text: string): void => {
    end(text);
    void worker.terminate();
  };
  return { calls, terminate: async () => void (await worker.terminate()), giveUp };
}

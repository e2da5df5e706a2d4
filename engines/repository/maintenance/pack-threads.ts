/** Packs read in threads of their own: one pack at a time each. They live as long as the check that started them. */
import { Worker, type MessagePort } from 'node:worker_threads';
import { errorCodeOf, messageOf, TidemarkError, type ErrorCode } from '../../../schema/domain/errors.ts';
import { doPackTask, type PackTask, type PackWorker } from './pack-worker.ts';
import type { Salvaged } from './salvage-pack.ts';
import type { PackShelf, PackVerdict } from './verify-pack.ts';

/** `entry`: a file that calls `runPackThread`; `data`: plain data for it. */
export type PackThreads = { entry: URL; data: unknown; count: number };

type Answer = { value: unknown } | { error: { code: ErrorCode; message: string; details: Record<string, unknown> } };

/** The thread's side: one task at a time. */
export function runPackThread(port: Pick<MessagePort, 'on' | 'postMessage'>, shelf: PackShelf): void {
  const answer = async (task: PackTask): Promise<Answer> => {
    try {
      return { value: await doPackTask(shelf, task) };
    } catch (error) {
      const details = error instanceof TidemarkError ? error.details : {};
      return { error: { code: errorCodeOf(error) ?? 'BUG', message: messageOf(error), details } };
    }
  };
  port.on('message', (task: PackTask) => void answer(task).then((answered) => port.postMessage(answered)));
}

export function openPackThreads({ entry, data, count }: PackThreads): PackWorker {
  const threads = Array.from({ length: count }, () => new PackThread(entry, data));
  const idle = [...threads];
  const waiting: ((thread: PackThread) => void)[] = [];

  async function ask<T>(task: PackTask): Promise<T> {
    const thread = idle.pop() ?? (await new Promise<PackThread>((resolve) => waiting.push(resolve)));
    try {
      return await thread.ask<T>(task);
    } finally {
      const next = waiting.shift();
      if (next) next(thread);
      else idle.push(thread);
    }
  }

  return {
    laneCount: count,
    verify: (job) => ask<PackVerdict>({ verify: job }),
    salvage: (job) => ask<Salvaged | null>({ salvage: job }),
    close: async () => void (await Promise.all(threads.map((thread) => thread.end()))),
  };
}

/** Started when it is first asked. One that died answers nothing more. */
class PackThread {
  readonly #entry: URL;
  readonly #data: unknown;
  #worker: Worker | null = null;
  #settle: { resolve(value: unknown): void; reject(error: Error): void } | null = null;
  #failure: Error | null = null;

  constructor(entry: URL, data: unknown) {
    this.#entry = entry;
    this.#data = data;
  }

  ask<T>(task: PackTask): Promise<T> {
    if (this.#failure) return Promise.reject(this.#failure);
    const port: Pick<MessagePort, 'postMessage'> = (this.#worker ??= this.#start());
    return new Promise((resolve, reject) => {
      this.#settle = { resolve: resolve, reject };
      port.postMessage(task);
    });
  }

  async end(): Promise<void> {
    this.#fail(new TidemarkError('HOST_DRAINING', 'the check was ended'));
    await this.#worker?.terminate();
  }

  #start(): Worker {
    const worker = new Worker(this.#entry, { workerData: this.#data });
    worker.on('message', (answer: Answer) => this.#take(answer));
    worker.on('error', (error) => this.#fail(ended(messageOf(error), error)));
    worker.on('exit', (exitCode) => this.#fail(ended(`exit code ${exitCode}`)));
    return worker;
  }

  #take(answer: Answer): void {
    const settle = this.#settle;
    this.#settle = null;
    if ('value' in answer) settle?.resolve(answer.value);
    else settle?.reject(new TidemarkError(answer.error.code, answer.error.message, answer.error.details));
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#settle?.reject(this.#failure);
    this.#settle = null;
  }
}

const ended = (why: string, cause?: unknown): TidemarkError =>
  new TidemarkError('BUG', `a thread that reads packs ended: ${why}`, {}, cause);

/**
 * Waiting for resources without polling: one grant pass serves everybody who waits in this process. A pass runs when
 * somebody arrives, when something is given back, and each 500 ms while anybody waits; none while nobody does.
 */
import type { Reason } from '../../schema/domain/hypervisor.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import type { HeldLease, ResourceDecision } from '../../schema/domain/scheduling.ts';
import type { Log } from '../../schema/domain/seams.ts';

export type RequestKey = { workflowId: string; requestNumber: number };
export type Waiting = { position: number | null; reason: Reason };
/** `gone`: the request is in line no more, by another hand. */
export type Taken = { is: 'granted'; leases: HeldLease[] } | ({ is: 'waiting' } & Waiting) | { is: 'gone' };

export type GrantLoopOptions = {
  /** One pass over all requests that wait. */
  pass(): Promise<ResourceDecision>;
  /** What became of one request. */
  look(key: RequestKey): Promise<Taken>;
  log: Log;
  /** Default 500. */
  intervalMs?: number;
};

type Ended = Exclude<Taken, { is: 'waiting' }>;
type Waiter = { key: RequestKey; tell: (taken: Ended) => void; onReason: (wait: Waiting) => void };
const nameOf = ({ workflowId, requestNumber }: RequestKey): string => `${requestNumber} ${workflowId}`;

export class GrantLoop {
  readonly #options: GrantLoopOptions;
  readonly #waiters = new Set<Waiter>();
  #running = false;
  #again = false;
  #isFailing = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: GrantLoopOptions) {
    this.#options = options;
  }

  /**
   * Resolves when the request, which is in line already, was granted or has gone, and with null when the signal aborts.
   * `onReason` is told why it waits, after each pass.
   */
  wait(key: RequestKey, signal: AbortSignal, onReason: (wait: Waiting) => void): Promise<Ended | null> {
    if (signal.aborted) return Promise.resolve(null);
    return new Promise((resolve) => {
      const leave = (taken: Ended | null): void => {
        signal.removeEventListener('abort', abort);
        this.#waiters.delete(waiter);
        if (this.#waiters.size === 0) clearTimeout(this.#timer);
        resolve(taken);
      };
      const abort = (): void => leave(null);
      const waiter: Waiter = { key, tell: leave, onReason };
      signal.addEventListener('abort', abort, { once: true });
      this.#waiters.add(waiter);
      this.kick();
    });
  }

  /** Something was given back or has arrived. Nobody waits: nothing happens. */
  kick(): void {
    if (this.#waiters.size === 0) return;
    this.#again = true;
    if (!this.#running) void this.#run();
  }

  async #run(): Promise<void> {
    this.#running = true;
    clearTimeout(this.#timer);
    while (this.#again && this.#waiters.size > 0) {
      this.#again = false;
      await this.#once();
    }
    this.#running = false;
    if (this.#waiters.size > 0) this.#timer = setTimeout(() => this.kick(), this.#options.intervalMs ?? 500);
  }

  async #once(): Promise<void> {
    // Those who come during the pass may not be in it: the next one is for them.
    const waiters = [...this.#waiters];
    try {
      const { reasons } = await this.#options.pass();
      const waits = new Map(reasons.map((wait) => [nameOf(wait), wait]));
      for (const waiter of waiters) {
        const wait = waits.get(nameOf(waiter.key));
        if (wait) waiter.onReason({ position: wait.position, reason: wait.reason });
        else await this.#look(waiter);
      }
      this.#isFailing = false;
    } catch (error) {
      const { log } = this.#options;
      log[this.#isFailing ? 'debug' : 'warn']('a grant pass failed and is tried again', { error: messageOf(error) });
      this.#isFailing = true;
      const message = `the catalog does not answer: ${messageOf(error)}`;
      for (const { onReason } of waiters) onReason({ position: null, reason: { code: 'DATABASE_ERROR', message } });
    }
  }

  /** Granted in this pass, in one of another process, or taken out of the line. */
  async #look({ key, tell, onReason }: Waiter): Promise<void> {
    const taken = await this.#options.look(key);
    if (taken.is === 'waiting') onReason(taken);
    else tell(taken);
  }
}

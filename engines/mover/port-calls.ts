/** Calls and notices over a message port between a worker's main thread and its lane threads. */
import type { MessagePort, Worker } from 'node:worker_threads';
import { errorCodeOf, messageOf, TidemarkError, type ErrorCode } from '../../schema/domain/errors.ts';

export type Port = Pick<MessagePort, 'postMessage' | 'on'> | Pick<Worker, 'postMessage' | 'on'>;

/** An error as it crosses threads: classes do not. */
type PlainError = { code: ErrorCode; message: string; details: Record<string, unknown> };
export type PortMessage =
  | { kind: 'call'; id: number; method: string; args: unknown[] }
  | { kind: 'answer'; id: number; value?: unknown; error?: PlainError }
  | { kind: 'notice'; name: string; value: unknown };

const plain = (error: unknown): PlainError => ({
  code: errorCodeOf(error) ?? 'BUG',
  message: messageOf(error),
  details: error instanceof TidemarkError ? error.details : { stack: error instanceof Error ? error.stack : undefined },
});

export type Handlers = Record<string, (...args: never[]) => unknown>;

export type PortCalls = {
  /** Rejects with the other side's error, or the reason of `fail`. */
  call<T>(method: string, ...args: unknown[]): Promise<T>;
  notify(name: string, value: unknown): void;
  /** Ends every waiting call, and every later one; the other side is not heard any more. */
  fail(reason: Error): void;
  readonly failed: boolean;
};

/** `handlers` answers the other side's calls; `onNotice` hears its notices. */
export function openPortCalls(
  port: Port,
  handlers: Handlers,
  onNotice: (name: string, value: unknown) => void = () => undefined,
): PortCalls {
  const waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  let nextId = 0;
  let failure: Error | null = null;
  const post = (message: PortMessage): void => port.postMessage(message);

  async function answer(id: number, method: string, args: unknown[]): Promise<void> {
    try {
      const handler = handlers[method];
      if (!handler) throw new TidemarkError('BUG', `no such call between threads: ${method}`);
      post({ kind: 'answer', id, value: await handler(...(args as never[])) });
    } catch (error) {
      post({ kind: 'answer', id, error: plain(error) });
    }
  }

  function settle(message: Extract<PortMessage, { kind: 'answer' }>): void {
    const waiter = waiting.get(message.id);
    waiting.delete(message.id);
    const { error } = message;
    if (error) waiter?.reject(new TidemarkError(error.code, error.message, error.details));
    else waiter?.resolve(message.value);
  }

  (port as MessagePort).on('message', (message: PortMessage) => {
    // What was given up may still speak: what it takes nobody would give back.
    if (failure) return;
    if (message.kind === 'call') void answer(message.id, message.method, message.args);
    else if (message.kind === 'answer') settle(message);
    else onNotice(message.name, message.value);
  });

  return {
    get failed() {
      return failure !== null;
    },
    call: <T>(method: string, ...args: unknown[]) =>
      new Promise<T>((resolve, reject) => {
        if (failure) return reject(failure);
        const id = (nextId += 1);
        waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
        post({ kind: 'call', id, method, args });
      }),
    notify: (name, value) => post({ kind: 'notice', name, value }),
    fail: (reason) => {
      failure ??= reason;
      for (const waiter of waiting.values()) waiter.reject(reason);
      waiting.clear();
    },
  };
}

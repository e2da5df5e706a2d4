/** Small tools for waiting inside a lane. */
export type Deferred<T> = { promise: Promise<T>; resolve: (value: T) => void; reject: (error: unknown) => void };

/** A promise nobody waits for yet may be rejected without ending the process. */
export function deferred<T>(): Deferred<T> {
  let resolve!: (value: T) => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<T>((yes, no) => {
    resolve = yes;
    reject = no;
  });
  promise.catch(() => undefined);
  return { promise, resolve, reject };
}

/** As `work`, or rejects with the signal's reason; `work` goes on then. */
export async function unlessAborted<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const aborted = deferred<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener('abort', abort, { once: true });
  try {
    return await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}

/** Room counted in bytes, given out in the order asked. */
export class ByteBudget {
  #free: number;
  #failure: Error | null = null;
  readonly #waiting: { bytes: number; grant: Deferred<void> }[] = [];

  constructor(bytes: number) {
    this.#free = bytes;
  }

  /** Who waits leaves the line when the signal aborts, with its reason. */
  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#failure) throw this.#failure;
    if (this.#waiting.length === 0 && this.#free >= bytes) {
      this.#free -= bytes;
      return;
    }
    const waiter = { bytes, grant: deferred<void>() };
    this.#waiting.push(waiter);
    const leave = (): void => {
      const at = this.#waiting.indexOf(waiter);
      if (at < 0) return;
      this.#waiting.splice(at, 1);
      waiter.grant.reject(signal?.reason);
      this.give(0);
    };
    signal?.addEventListener('abort', leave, { once: true });
    try {
      await waiter.grant.promise;
    } finally {
      signal?.removeEventListener('abort', leave);
    }
  }

  give(bytes: number): void {
    this.#free += bytes;
    while (this.#waiting[0] && this.#waiting[0].bytes <= this.#free) {
      const next = this.#waiting.shift()!;
      this.#free -= next.bytes;
      next.grant.resolve();
    }
  }

  fail(error: Error): void {
    this.#failure = error;
    for (const { grant } of this.#waiting.splice(0)) grant.reject(error);
  }
}

/**
 * Runs `work` over `items` with at most `width` at once. The first error stops the rest from starting and is thrown
 * once those in work have ended: none of them may touch shared memory after this returned.
 */
export async function runSideBySide<T>(
  items: Iterable<T>,
  width: number,
  work: (item: T) => Promise<void>,
): Promise<void> {
  const iterator = items[Symbol.iterator]();
  let failure: { error: unknown } | null = null;
  const runner = async (): Promise<void> => {
    for (let step = iterator.next(); !step.done && !failure; step = iterator.next()) {
      try {
        await work(step.value);
      } catch (error) {
        failure ??= { error };
      }
    }
  };
  await Promise.all(Array.from({ length: width }, runner));
  if (failure) throw (failure as { error: unknown }).error;
}

/** One after another by key: a repeated verb waits for the first try that still runs. */
export type Turns = {
  take<T>(key: string, work: () => Promise<T>): Promise<T>;
  /** Resolves when what runs and waits under that key has ended; null: nothing does. */
  ended(key: string): Promise<unknown> | null;
  /** Resolves when nothing runs or waits. */
  idle(): Promise<void>;
};

export function createTurns(): Turns {
  const tails = new Map<string, Promise<unknown>>();
  return {
    take: (key, work) => {
      const turn = (tails.get(key) ?? Promise.resolve()).then(work);
      const tail = turn.then(
        () => undefined,
        () => undefined,
      );
      tails.set(key, tail);
      void tail.then(() => {
        if (tails.get(key) === tail) tails.delete(key);
      });
      return turn;
    },
    ended: (key) => tails.get(key) ?? null,
    idle: async () => {
      while (tails.size > 0) await Promise.all(tails.values());
    },
  };
}

/** Work that ends together: the first failure cancels the others and is thrown when all have ended. */
import { CancellationScope } from '@temporalio/workflow';

export async function runAllOrCancel(works: readonly (() => Promise<void>)[]): Promise<void> {
  const scope = new CancellationScope();
  let first: { error: unknown } | null = null;
  const run = (work: () => Promise<void>): Promise<void> =>
    work().catch((error: unknown) => {
      // What the cancellation brings the others is not the reason.
      first ??= { error };
      scope.cancel();
    });
  await scope.run(() => Promise.all(works.map(run)));
  if (first) throw (first as { error: unknown }).error;
}

/** The same, for what each of them gives. */
export async function sideBySide<T extends unknown[]>(
  works: readonly [...{ [I in keyof T]: () => Promise<T[I]> }],
): Promise<T> {
  const results: unknown[] = [];
  await runAllOrCancel(
    works.map((work, at) => async () => {
      results[at] = await work();
    }),
  );
  return results as T;
}

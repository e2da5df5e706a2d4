/** Once an audit has found tracking wrong, the catalog learns which restore points that makes suspect. */
import { controlQueue } from '../schema/domain/queues.ts';
import { viewOf } from './failures.ts';
import { say } from './say.ts';
import type { VmRun } from './vm-run.ts';

/** The repository has marked them by then. What cannot be told now the import of the night tells. */
export async function tellSuspects(run: VmRun): Promise<void> {
  try {
    const signs = await run.machines.on(run.repository, 'listSuspects')({ lineage: run.lineage });
    await say('recordSuspects', { queue: controlQueue })({ signs });
  } catch (error) {
    const view = viewOf(error);
    run.warn(view.code, `the catalog does not show yet which restore points are suspect: ${view.message}`);
  }
}

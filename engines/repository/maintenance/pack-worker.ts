/** Who reads packs from end to end, and salvages them: away from the main thread, as many side by side as there are lanes. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { salvagePack, type SalvageJob, type Salvaged } from './salvage-pack.ts';
import { verifyPack, type PackShelf, type PackVerdict, type VerifyJob } from './verify-pack.ts';

/** Calls beyond `laneCount` wait for those before them. */
export type PackWorker = {
  readonly laneCount: number;
  verify(job: VerifyJob): Promise<PackVerdict>;
  salvage(job: SalvageJob): Promise<Salvaged | null>;
  /** Ends what is under way. */
  close(): Promise<void>;
};

/** What a thread is asked. */
export type PackTask = { verify: VerifyJob } | { salvage: SalvageJob };

/** In the thread that calls it. */
export const doPackTask = (shelf: PackShelf, task: PackTask): Promise<PackVerdict | Salvaged | null> =>
  'verify' in task ? verifyPack(shelf, task.verify) : salvagePack(shelf, task.salvage);

/** BAD_REQUEST when there is none. */
export function packWorkerOf({ openPackWorker }: { openPackWorker: (() => PackWorker) | null }): () => PackWorker {
  if (openPackWorker) return openPackWorker;
  throw new TidemarkError('BAD_REQUEST', 'this process has no threads that read packs');
}

/** Reads a simulated disk as its checkpoint froze it; knows the model's files only. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { clip } from '../../../schema/domain/extents.ts';
import type { DiskAccess } from '../../../schema/domain/hypervisor.ts';
import type { DiskReader } from '../../../schema/domain/seams.ts';
import { allocationOf, contentOf } from './content.ts';
import { changedBetween, diskAt, readGuest, readState } from './model.ts';

/** CHECKPOINT_LOST: the model has no open checkpoint of this run. */
export async function openSimulatedReader(access: DiskAccess, model: string): Promise<DiskReader> {
  const state = await readState(model);
  const stored = state?.checkpoints[access.run];
  const disk = state?.disks.find(({ diskKey }) => diskKey === access.diskKey);
  if (!stored || stored.released || !disk)
    throw new TidemarkError('CHECKPOINT_LOST', `no checkpoint of run ${access.run} holds disk ${access.diskKey}`, {
      run: access.run,
      diskKey: access.diskKey,
    });
  const guest = await readGuest(model);
  const frozen = diskAt(disk, guest, stored.moment);
  const since = stored.changesSince[access.diskKey];
  return {
    sizeBytes: frozen.sizeBytes,
    async *allocatedExtents(of) {
      yield* allocationOf(frozen, of);
    },
    async *changedExtents(of) {
      if (!access.changes || since === undefined)
        throw new TidemarkError(
          'TRACKING_LOST',
          `disk ${access.diskKey} has no changed block tracking in ${access.run}`,
          {
            diskKey: access.diskKey,
          },
        );
      yield* clip(changedBetween(disk.diskKey, guest, since, stored.moment), of);
    },
    async read(of, into, signal) {
      signal.throwIfAborted();
      contentOf(frozen, of, into);
      await Promise.resolve();
    },
    async close() {
      await Promise.resolve();
    },
  };
}

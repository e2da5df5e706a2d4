/** What a person does to one restore point: at the repository, which is the truth, then in the catalog. */
import { CancellationScope, upsertSearchAttributes } from '@temporalio/workflow';
import type { ChangedRestorePoint, RestorePointChangeInput } from '../schema/domain/maintenance-sessions.ts';
import { controlQueue, repositoryCtlQueue } from '../schema/domain/queues.ts';
import { asStartFailure } from './failures.ts';
import { say } from './say.ts';
import { maintenanceAttributes, resultAttributes } from './search-attributes.ts';

export async function restorePointChange(input: RestorePointChangeInput): Promise<ChangedRestorePoint> {
  const { repositoryId, restorePointId, change } = input;
  upsertSearchAttributes(maintenanceAttributes(repositoryId));
  const queue = repositoryCtlQueue(repositoryId);
  const asked = say('changeRestorePoint', { queue, summary: change.kind })({ restorePointId, change });
  const changed = await asked.catch((error: unknown) => {
    throw asStartFailure(error);
  });
  await CancellationScope.nonCancellable(() => say('recordRestorePointChange', { queue: controlQueue })(changed));
  upsertSearchAttributes(resultAttributes('Success'));
  return changed;
}

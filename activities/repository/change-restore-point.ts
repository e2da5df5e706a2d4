/** What a person says of one restore point: kept, held, released, removed, brought back. */
import type { Repository } from '../../engines/repository/repository.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import type {
  ChangedRestorePoint,
  RestorePointChange,
  SealedRestorePoint,
} from '../../schema/domain/maintenance-sessions.ts';

type Changed = Pick<Repository, 'listSealed' | 'removeRestorePoint' | 'restoreFromTrash' | 'setFlags'>;

/** Again: the same answer. RESTORE_POINT_NOT_FOUND, RESTORE_POINT_HELD, LAST_RESTORE_POINT. */
export async function changeRestorePoint(
  repository: Changed,
  { restorePointId, change }: { restorePointId: RestorePointId; change: RestorePointChange },
  clock: Pick<Clock, 'now'>,
): Promise<ChangedRestorePoint> {
  if (change.kind === 'remove') {
    const { trashedUntil, asOf } = await repository.removeRestorePoint(restorePointId, { last: change.last });
    return { removed: true, restorePointId, trashedUntil, asOf };
  }
  if (change.kind === 'undelete') await repository.restoreFromTrash(restorePointId);
  else {
    const { keep, hold } = change;
    const wanted = { ...(keep === undefined ? {} : { keep }), ...(hold === undefined ? {} : { hold }) };
    await repository.setFlags(restorePointId, wanted);
  }
  const asOf = new Date(clock.now()).toISOString();
  return { removed: false, asOf, ...sealedOf(repository, restorePointId) };
}

function sealedOf(repository: Changed, id: RestorePointId): SealedRestorePoint {
  const found = repository.listSealed().find(({ restorePointId }) => restorePointId === id);
  if (found) return found;
  throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `there is no sealed restore point ${id}`, { restorePointId: id });
}

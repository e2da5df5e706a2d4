/** The verbs of maintenance, and what sessions need of it. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { digestOfMissing } from '../restore-point/damages.ts';
import { requireSealed } from '../restore-point/points.ts';
import type { Repository } from '../repository.ts';
import { collect } from './collect.ts';
import { describeFlags, type Flags } from './flags.ts';
import { createProtection } from './locks.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { resetClock } from './reset-clock.ts';
import { removeRestorePoint, restoreFromTrash } from './removal.ts';
import { bringBackFor } from './trash.ts';

type Verbs = Pick<
  Repository,
  'collect' | 'resetClock' | 'removeRestorePoint' | 'restoreFromTrash' | 'setFlags' | 'flagsOf' | 'readTime'
>;

export function createMaintenance(parts: MaintenanceParts): Verbs {
  const { turns, points, flags, time } = parts;
  const protect = createProtection(parts);
  const describe = (id: RestorePointId, of: Flags | 'unreadable') =>
    describeFlags(of, time.lastMs(), requireSealed(points, id).manifest.sealedAt);
  /** Asked for again while it is under way: the first one's answer was lost, and the second would wait for itself. */
  const undeletes = new Map<RestorePointId, Promise<SealOutcome>>();
  const undelete = async (id: RestorePointId): Promise<SealOutcome> => {
    await untilNotCollected(parts, id);
    return turns.take('collection', () => restoreFromTrash(parts, id));
  };
  return {
    collect: (options) => turns.take('collection', () => collect(parts, options, protect)),
    removeRestorePoint: (id, options = {}) =>
      turns.take('trash', () => removeRestorePoint(parts, id, options, protect)),
    restoreFromTrash: (id) => {
      const running = undeletes.get(id);
      if (running) return running;
      const fresh = undelete(id).finally(() => undeletes.delete(id));
      undeletes.set(id, fresh);
      return fresh;
    },
    setFlags: async (id, { keep, hold }) => {
      requireSealed(points, id);
      if (hold === '') throw new TidemarkError('BAD_REQUEST', 'a hold needs a reason', { field: 'hold' });
      const set = (known: Flags): Flags => ({
        ...known,
        keep: keep ?? known.keep,
        hold: hold === undefined ? known.hold : hold,
      });
      return describe(id, await flags.change(id, set));
    },
    flagsOf: (id) => describe(id, flags.of(id)),
    readTime: () => time.read(),
    resetClock: (today) => turns.take('collection', () => resetClock(parts, today)),
  };
}

/** ALREADY_RUNNING: a collection or repair has not ended within what a person waits, and may take hours. */
async function untilNotCollected(
  { turns, seams, file, undeleteWaitMs }: MaintenanceParts,
  id: RestorePointId,
): Promise<void> {
  const { clock } = seams;
  const waited = new AbortController();
  const tooLong = clock.sleep(undeleteWaitMs, waited.signal).then(
    () => true,
    () => false,
  );
  try {
    for (let ended = turns.ended('collection'); ended; ended = turns.ended('collection')) {
      if (!(await Promise.race([ended.then(() => false), tooLong]))) continue;
      const message = `restore point ${id} is not brought back: repository ${file.repository} is being collected or repaired`;
      throw new TidemarkError('ALREADY_RUNNING', message, { restorePointId: id, repositoryId: file.repository });
    }
  } finally {
    waited.abort();
  }
}

/** As `work`; what it misses is brought back from the trash, where it is. */
export async function withTrash<T>(parts: MaintenanceParts, work: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await work();
    } catch (error) {
      const digest = digestOfMissing(error);
      if (digest === null || !(await bringBack(parts, digest))) throw error;
    }
  }
}

/** Whether the trash had it. */
export const bringBack = async (parts: MaintenanceParts, digest: Uint8Array): Promise<boolean> =>
  (await bringBackFor(parts, [parts.vault.idOf(digest)])) > 0;

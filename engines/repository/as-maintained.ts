/** Until the verbs of maintenance are in the facade itself: those that need nothing of the engine. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import { noFlags } from '../../schema/domain/maintenance-sessions.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import type { MaintainedRepository } from './maintained-repository.ts';
import type { Repository } from './repository.ts';

const missing = (): Promise<never> =>
  Promise.reject(new TidemarkError('BUG', 'this repository has no maintenance yet'));

export const asMaintained = (repository: Repository, clock: Clock): MaintainedRepository => ({
  collect: missing,
  removeRestorePoint: missing,
  restoreFromTrash: missing,
  setFlags: missing,
  check: missing,
  repair: missing,
  statistics: missing,
  repositoryTime: () => new Date(clock.now()).toISOString(),
  ...repository,
  listSealed: () => repository.listSealed().map((sealed) => ({ ...{ mark: null, flags: noFlags }, ...sealed })),
});

/** Until check, repair and statistics are in the facade itself. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { MaintainedRepository } from './maintained-repository.ts';
import type { Repository } from './repository.ts';

const missing = (): Promise<never> => Promise.reject(new TidemarkError('BUG', 'this repository cannot do that yet'));

export const asMaintained = (repository: Repository): MaintainedRepository => ({
  check: missing,
  repair: missing,
  statistics: missing,
  ...repository,
  listSealed: () => repository.listSealed().map((sealed) => ({ ...{ mark: null }, ...sealed })),
});

/**
 * Whoever reads repository.json to write it again has it to himself meanwhile: the owner of the repository when it opens
 * it, and whoever changes keys, beside an owner who goes on. So nobody writes back what another has changed.
 */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Clock } from '../../../schema/domain/seams.ts';
import { layout } from './layout.ts';
import type { Staging } from './staging.ts';

const RETRY_MS = 100;
/** Deriving a key from a passphrase is most of it, and takes a second. */
const PATIENCE_MS = 60_000;

/** REPOSITORY_IN_USE when somebody else has it for a minute. */
export async function withFileClaimed<T>(
  staging: Staging,
  clock: Pick<Clock, 'sleep'>,
  work: () => Promise<T>,
): Promise<T> {
  const release = await claimFile(staging, clock);
  try {
    return await work();
  } finally {
    release();
  }
}

async function claimFile(staging: Staging, clock: Pick<Clock, 'sleep'>): Promise<() => void> {
  for (let waitedMs = 0; ; waitedMs += RETRY_MS) {
    try {
      return staging.lock(layout.fileLock);
    } catch (error) {
      if (errorCodeOf(error) !== 'REPOSITORY_IN_USE') throw error;
      if (waitedMs >= PATIENCE_MS) throw stillClaimed(staging, error);
    }
    await clock.sleep(RETRY_MS);
  }
}

function stillClaimed(staging: Staging, cause: unknown): TidemarkError {
  const path = staging.locate(layout.repositoryFile);
  const { details } = cause as TidemarkError;
  const who = typeof details['pid'] === 'number' ? `process ${details['pid']}` : 'another process';
  return new TidemarkError('REPOSITORY_IN_USE', `${who} has been changing ${path} for a minute`, details, cause);
}

/**
 * An owner takes up data keys that somebody made while it goes on (`change-keys.ts`). No record may have one that a thread
 * does not know which reads it: all are given it to read with, and when all have it, to write with. Nor may it have one that
 * is in repository.json only, or in its copy only: either may be lost.
 */
import { messageOf } from '../../schema/domain/errors.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { newerDataKeys, type DataKeys, type RepositoryKeys } from '../../schema/repository/keys.ts';
import type { Vault } from '../../schema/repository/vault.ts';
import { withFileClaimed } from './storage/claim-file.ts';
import { mendRepositoryFile, readRepositoryFile } from './storage/repository-file.ts';
import type { Staging } from './storage/staging.ts';
import type { Turns } from './storage/turns.ts';

export type KeyFollower = {
  staging: Staging;
  /** What threads begin with: changed in place. */
  keys: RepositoryKeys;
  vault: Vault;
  /** Resolves when all threads that read and write have them. */
  tellLanes: (keys: DataKeys) => Promise<void>;
  turns: Turns;
  clock: Pick<Clock, 'sleep'>;
  log: Log;
};

/** Whatever hinders it: work goes on with the keys that are known, and it is tried again the next time. */
export async function followKeys(follower: KeyFollower): Promise<void> {
  const { turns, log } = follower;
  await turns
    .take('keys', () => takeUp(follower))
    .catch((error: unknown) => log.warn('a new data key cannot be taken up yet', { error: messageOf(error) }));
}

async function takeUp(follower: KeyFollower): Promise<void> {
  const { keys, vault, tellLanes, log } = follower;
  const upcoming = await findUpcoming(follower);
  if (upcoming.length === 0) return;
  const { dataKeys } = keys.vault;
  for (const now of [
    { dataKeys, upcoming },
    { dataKeys: [...dataKeys, ...upcoming], upcoming: [] },
  ]) {
    Object.assign(keys.vault, now);
    vault.takeDataKeys(now);
    await tellLanes(now);
  }
  log.info('records have a new data key from now on', { dataKey: upcoming.at(-1)!.id });
}

type Upcoming = DataKeys['upcoming'];

/** Those that file and copy have, durably: he who writes them syncs the file before he begins with the copy. */
async function findUpcoming({ staging, keys, clock, log }: KeyFollower): Promise<Upcoming> {
  const found = await readRepositoryFile(staging);
  const upcoming = found ? newerDataKeys(found.file, keys) : [];
  if (upcoming.length === 0 || found?.isWhole) return upcoming;
  // Somebody is about to write the copy, or has died over it.
  return withFileClaimed(staging, clock, async () => {
    const left = await readRepositoryFile(staging);
    // Of somebody without the keys nothing is written.
    if (!left || newerDataKeys(left.file, keys).length === 0) return [];
    await mendRepositoryFile(staging, left, log);
    const mended = await readRepositoryFile(staging);
    return mended?.isWhole ? newerDataKeys(mended.file, keys) : [];
  });
}

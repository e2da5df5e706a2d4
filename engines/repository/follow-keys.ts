/**
 * An owner takes up data keys that somebody made while it goes on (`change-keys.ts`). No record may have one that a thread
 * does not know which reads it: all are given it to read with, and when all have it, to write with.
 */
import { messageOf } from '../../schema/domain/errors.ts';
import type { Log } from '../../schema/domain/seams.ts';
import { newerDataKeys, type DataKeys, type RepositoryKeys } from '../../schema/repository/keys.ts';
import type { Vault } from '../../schema/repository/vault.ts';
import { readRepositoryFile } from './storage/repository-file.ts';
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
  log: Log;
};

/** Whatever hinders it: work goes on with the keys that are known, and it is tried again the next time. */
export async function followKeys(follower: KeyFollower): Promise<void> {
  const { turns, log } = follower;
  await turns
    .take('keys', () => takeUp(follower))
    .catch((error: unknown) => log.warn('a new data key cannot be taken up yet', { error: messageOf(error) }));
}

async function takeUp({ staging, keys, vault, tellLanes, log }: KeyFollower): Promise<void> {
  const found = await readRepositoryFile(staging);
  const upcoming = found ? newerDataKeys(found.file, keys) : [];
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

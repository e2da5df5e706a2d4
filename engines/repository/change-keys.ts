/**
 * Key slots and data keys of an encrypted repository, changed while its owner goes on: keys are in repository.json alone, and
 * whoever writes that has it to himself meanwhile.
 */
import { errorCodeOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { RepositoryId } from '../../schema/domain/ids.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import type { RepositoryFile } from '../../schema/repository/documents.ts';
import type { DataKey, KeySlot } from '../../schema/repository/key-shapes.ts';
import {
  addSlot,
  removeSlot,
  rotateDataKey,
  unlock,
  type KeyOptions,
  type RepositoryKeys,
} from '../../schema/repository/keys.ts';
import type { ScryptCost, Secret } from '../../schema/repository/secrets.ts';
import { withFileClaimed } from './storage/claim-file.ts';
import { takeUp } from './storage/claim-repository.ts';
import { readRepositoryFile, replaceRepositoryFile } from './storage/repository-file.ts';
import type { Staging } from './storage/staging.ts';
import type { Storage } from './storage/storage.ts';

/** `secret`: one that opens it. `cost`: of new passphrase slots. */
export type KeyWork = {
  storage: Storage;
  repositoryId: RepositoryId;
  secret: Secret;
  seams: Seams;
  cost?: ScryptCost;
};

function notOne(staging: Staging, repositoryId: RepositoryId): TidemarkError {
  const folder = staging.locate('');
  return new TidemarkError('REPOSITORY_NOT_ONE', `${folder} is not the repository ${repositoryId}`, { folder });
}

/** Needs neither a secret nor the repository for itself. REPOSITORY_NOT_ONE. */
export async function describeKeys(
  { staging }: Storage,
  repositoryId: RepositoryId,
): Promise<Pick<RepositoryFile, 'keySlots' | 'dataKeys'>> {
  const found = await readRepositoryFile(staging);
  if (found?.file.repository !== repositoryId) throw notOne(staging, repositoryId);
  return found.file;
}

type Change = (file: RepositoryFile, keys: RepositoryKeys, options: KeyOptions) => Promise<RepositoryFile>;

/** Errors as of `claimRepository`, but makes none. Durable, with its copy, when it resolves. */
async function changeFile(work: KeyWork, change: Change): Promise<RepositoryFile> {
  const { repositoryId, seams, cost } = work;
  const { staging } = work.storage;
  // A lock is not left in a folder that is none.
  await describeKeys(work.storage, repositoryId);
  return withFileClaimed(staging, seams.clock, async () => {
    const taken = await takeUp(staging, work);
    if (!taken?.keys) throw notOne(staging, repositoryId);
    const options = { random: seams.random, now: new Date(seams.clock.now()).toISOString(), ...(cost && { cost }) };
    const changed = await change(taken.file, taken.keys, options);
    await replaceRepositoryFile(staging, changed);
    return changed;
  });
}

/** The new slot. BAD_REQUEST: the secret is weak, or there are 16 slots. */
export async function addKey(work: KeyWork, secret: Secret): Promise<KeySlot> {
  const { keySlots } = await changeFile(work, (file, keys, options) => addSlot(file, keys, secret, options));
  return keySlots.at(-1)!;
}

/** NOT_FOUND; BAD_REQUEST for the slot that the secret of `work` opens: nobody is to lock himself out. */
export async function removeKey(work: KeyWork, slotId: string): Promise<void> {
  await changeFile(work, async (file, keys) => {
    const changed = removeSlot(file, keys, slotId);
    await unlock(changed, work.secret).catch((error: unknown) => {
      if (errorCodeOf(error) !== 'WRONG_KEY') throw error;
      const message = `key slot ${slotId} is the one that the configured secret opens: configure another one first`;
      throw new TidemarkError('BAD_REQUEST', message, { slot: slotId }, error);
    });
    return changed;
  });
}

/** The data key of all records to come. BAD_REQUEST after 256 of them. */
export async function rotateKey(work: KeyWork): Promise<DataKey> {
  const { dataKeys } = await changeFile(work, async (file, keys, options) => rotateDataKey(file, keys, options).file);
  return dataKeys.at(-1)!;
}

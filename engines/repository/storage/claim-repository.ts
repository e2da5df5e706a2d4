/** Makes or takes up a repository: who may, and what has to be there before anything else. */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { RepositoryId } from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import { isEncrypted, newRepositoryFile, type RepositoryFile } from '../../../schema/repository/documents.ts';
import { createKeys, unlock, type RepositoryKeys } from '../../../schema/repository/keys.ts';
import type { Secret } from '../../../schema/repository/secrets.ts';
import { withFileClaimed } from './claim-file.ts';
import { layout } from './layout.ts';
import { mendRepositoryFile, readRepositoryFile, replaceRepositoryFile, type FoundFile } from './repository-file.ts';
import type { Staging } from './staging.ts';

/** What a death within the first start can leave, and what a new file system has. */
const LEAVINGS = /^(lock(\.file)?(-journal|\.owner)?|\.new-.*|lost\+found)$/;

/** `secret`: null for a plain one. */
export type Claim = { repositoryId: RepositoryId; secret: Secret | null; seams: Seams };
/** A repository that this machine had open there before: its uuid, and the file that says so. */
export type Remembered = { uuid: string; file: string };
/** `keys`: null in a plain repository. */
export type ClaimedRepository = { file: RepositoryFile; keys: RepositoryKeys | null; release: () => void };

/**
 * A missing or empty area becomes a repository, encrypted if there is a secret. REPOSITORY_NOT_ONE: it holds something
 * else, or another repository; REPOSITORY_IN_USE, REPOSITORY_NEWER, REPOSITORY_CORRUPT, REPOSITORY_FULL; of the secret
 * KEY_MISSING, NOT_ENCRYPTED, WRONG_KEY, BAD_REQUEST (too weak for a new repository); TAMPERED. `before`: the area is not
 * taken for a new one where a repository was, which is what an unmounted disk looks like.
 */
export async function claimRepository(
  staging: Staging,
  claim: Claim,
  before: Remembered | null = null,
): Promise<ClaimedRepository> {
  await staging.prepare();
  const known = await readRepositoryFile(staging);
  if (known) checkIsMeant(staging, known.file, claim);
  else {
    await checkEmpty(staging);
    if (before) throw goneFrom(staging, before);
  }
  const release = staging.lock(layout.lock);
  try {
    const claimed = await openFile(staging, claim);
    for (const folder of [layout.openPacks, layout.aborted]) await staging.makeFolder(folder);
    return { ...claimed, release };
  } catch (error) {
    release();
    throw error;
  }
}

/**
 * Before anything that writes what others rely on, or says what is there. REPOSITORY_NOT_ONE: another folder lies where the
 * repository was opened: its disk is not mounted any more, or somebody moved it. A damaged file is no sign of that.
 */
export async function checkStillThere(staging: Staging, { uuid }: RepositoryFile): Promise<void> {
  const found = await readRepositoryFile(staging).catch((error: unknown) => {
    if (errorCodeOf(error) === 'REPOSITORY_CORRUPT') return undefined;
    throw error;
  });
  if (found === undefined || found?.file.uuid === uuid) return;
  const what = found ? `it is repository ${found.file.uuid} now` : 'it has no repository.json any more';
  throw notOne(staging, `${what}, and repository ${uuid} was opened there: is its disk mounted, or was it moved?`);
}

function notOne(staging: Staging, why: string): TidemarkError {
  const folder = staging.locate('');
  return new TidemarkError('REPOSITORY_NOT_ONE', `${folder} is not the repository meant: ${why}`, { folder });
}

const goneFrom = (staging: Staging, { uuid, file }: Remembered): TidemarkError =>
  notOne(
    staging,
    `it has no repository.json, and repository ${uuid} was there before: is its disk mounted? To begin with a new one, remove ${file}`,
  );

function checkIsMeant(staging: Staging, file: RepositoryFile, { repositoryId, secret }: Claim): void {
  if (file.repository !== repositoryId)
    throw notOne(staging, `it is repository ${file.repository}, and ${repositoryId} was asked for`);
  const details = { repository: repositoryId, folder: staging.locate('') };
  if (isEncrypted(file) && secret === null)
    throw new TidemarkError('KEY_MISSING', `repository ${repositoryId} is encrypted, and no key was given`, details);
  // Somebody may have put it there to get the next restore points in the clear.
  if (!isEncrypted(file) && secret !== null)
    throw new TidemarkError('NOT_ENCRYPTED', `repository ${repositoryId} is not encrypted, a key was given`, details);
}

async function checkEmpty(staging: Staging): Promise<void> {
  const found = (await staging.list('', { temporary: true })).find((name) => !LEAVINGS.test(name));
  if (found !== undefined) throw notOne(staging, `it has no repository.json, but ${found}`);
}

type Taken = Omit<ClaimedRepository, 'release'>;

/** Whole, it is only read: on a disk that is full there may be no room to claim it. */
async function openFile(staging: Staging, claim: Claim): Promise<Taken> {
  const found = await readRepositoryFile(staging);
  if (found?.isWhole) return unlocked(staging, found, claim);
  try {
    return await withFileClaimed(
      staging,
      claim.seams.clock,
      async () => (await takeUp(staging, claim)) ?? makeNew(staging, claim),
    );
  } catch (error) {
    if (found?.from !== 'file' || errorCodeOf(error) !== 'REPOSITORY_FULL') throw error;
    claim.seams.log.error('the copy of repository.json is not sound, and there is no room to mend it', {
      path: staging.locate(layout.repositoryFileCopy),
    });
    return unlocked(staging, found, claim);
  }
}

async function unlocked(staging: Staging, { file }: FoundFile, claim: Claim): Promise<Taken> {
  checkIsMeant(staging, file, claim);
  return { file, keys: claim.secret && (await unlock(file, claim.secret)) };
}

/** With the file claimed. Nothing is written before the secret has opened it. Null: there is none. Errors as of `claimRepository`. */
export async function takeUp(staging: Staging, claim: Claim): Promise<Taken | null> {
  const found = await readRepositoryFile(staging);
  if (!found) return null;
  const taken = await unlocked(staging, found, claim);
  await mendRepositoryFile(staging, found, claim.seams.log);
  return taken;
}

async function makeNew(staging: Staging, { repositoryId, secret, seams }: Claim): Promise<Taken> {
  const { clock, random } = seams;
  const now = new Date(clock.now()).toISOString();
  const plain = newRepositoryFile(repositoryId, Buffer.from(random.bytes(16)).toString('hex'), now);
  const made = secret ? await createKeys(plain, secret, { random, now }) : { file: plain, keys: null };
  await replaceRepositoryFile(staging, made.file);
  return made;
}

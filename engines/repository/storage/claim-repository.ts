/** Makes or takes up a repository: who may, and what has to be there before anything else. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RepositoryId } from '../../../schema/domain/ids.ts';
import type { Seams } from '../../../schema/domain/seams.ts';
import {
  encodeRepositoryFile,
  newRepositoryFile,
  parseRepositoryFile,
  type RepositoryFile,
} from '../../../schema/repository/documents.ts';
import { MAX_REPOSITORY_FILE_BYTES } from '../../../schema/repository/limits.ts';
import { layout } from './layout.ts';
import type { Staging } from './staging.ts';

/** What a death within the first start can leave, and what a new file system has. */
const LEAVINGS = /^(lock|lock-journal|lock\.owner|\.new-.*|lost\+found)$/;

export type ClaimedRepository = { file: RepositoryFile; release: () => void };

/**
 * A missing or empty area becomes a repository. REPOSITORY_NOT_ONE: it holds something else, or another repository;
 * REPOSITORY_IN_USE, REPOSITORY_NEWER, REPOSITORY_CORRUPT, REPOSITORY_FULL.
 */
export async function claimRepository(
  staging: Staging,
  repositoryId: RepositoryId,
  seams: Seams,
): Promise<ClaimedRepository> {
  await staging.prepare();
  const known = await readRepositoryFile(staging);
  if (known) checkOwner(staging, known, repositoryId);
  else await checkEmpty(staging);
  const release = staging.lock();
  try {
    const file = (await readRepositoryFile(staging)) ?? (await writeRepositoryFile(staging, repositoryId, seams));
    checkOwner(staging, file, repositoryId);
    for (const folder of [layout.openPacks, layout.aborted]) await staging.makeFolder(folder);
    return { file, release };
  } catch (error) {
    release();
    throw error;
  }
}

function notOne(staging: Staging, why: string): TidemarkError {
  const folder = staging.locate('');
  return new TidemarkError('REPOSITORY_NOT_ONE', `${folder} is not the repository meant: ${why}`, { folder });
}

async function readRepositoryFile(staging: Staging): Promise<RepositoryFile | null> {
  const text = await staging.readText(layout.repositoryFile, MAX_REPOSITORY_FILE_BYTES);
  return text === null ? null : parseRepositoryFile(text, staging.locate(layout.repositoryFile));
}

function checkOwner(staging: Staging, file: RepositoryFile, asked: RepositoryId): void {
  if (file.repository !== asked)
    throw notOne(staging, `it is repository ${file.repository}, and ${asked} was asked for`);
}

async function checkEmpty(staging: Staging): Promise<void> {
  const found = (await staging.list('', { temporary: true })).find((name) => !LEAVINGS.test(name));
  if (found !== undefined) throw notOne(staging, `it has no repository.json, but ${found}`);
}

async function writeRepositoryFile(
  staging: Staging,
  id: RepositoryId,
  { clock, random }: Seams,
): Promise<RepositoryFile> {
  const uuid = Buffer.from(random.bytes(16)).toString('hex');
  const file = newRepositoryFile(id, uuid, new Date(clock.now()).toISOString());
  await staging.putIfAbsent(layout.repositoryFile, encodeRepositoryFile(file));
  return file;
}

/** Makes or takes up a repository's folder: who may, and what has to be there before anything else. */
import { mkdir, readdir } from 'node:fs/promises';
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
import { ensureFolder, errnoOf, putIfAbsent, readTextFile, storageError } from './files.ts';
import { layoutOf, type Layout } from './layout.ts';
import { takeLock } from './lock.ts';

/** What a death within the first start can leave, and what a new file system has. */
const LEAVINGS = /^(lock|lock-journal|lock\.owner|\.new-.*|lost\+found)$/;

export type ClaimedFolder = { layout: Layout; file: RepositoryFile; release: () => void };

/**
 * A missing or empty folder becomes a repository. REPOSITORY_NOT_ONE: it holds something else, or another repository;
 * REPOSITORY_IN_USE, REPOSITORY_NEWER, REPOSITORY_CORRUPT, REPOSITORY_FULL.
 */
export async function claimFolder(folder: string, repositoryId: RepositoryId, seams: Seams): Promise<ClaimedFolder> {
  const layout = layoutOf(folder);
  await makeFolder(folder);
  const known = await readRepositoryFile(layout);
  if (known) checkOwner(layout, known, repositoryId);
  else await checkEmpty(folder);
  const release = takeLock(layout);
  try {
    const file = (await readRepositoryFile(layout)) ?? (await writeRepositoryFile(layout, repositoryId, seams));
    checkOwner(layout, file, repositoryId);
    const folders = [layout.shelfOf('blocks'), layout.shelfOf('pages'), layout.open, layout.openPacks];
    for (const one of [...folders, layout.aborted, layout.manifests]) await ensureFolder(one);
    return { layout, file, release };
  } catch (error) {
    release();
    throw error;
  }
}

const notOne = (folder: string, why: string, cause?: unknown): TidemarkError =>
  new TidemarkError('REPOSITORY_NOT_ONE', `${folder} is not the repository meant: ${why}`, { folder }, cause);

async function makeFolder(folder: string): Promise<void> {
  try {
    // What VMs held is not everybody's to read.
    await mkdir(folder, { recursive: true, mode: 0o700 });
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === 'EEXIST' || errno === 'ENOTDIR') throw notOne(folder, 'it is a file', error);
    throw storageError(error, folder);
  }
}

async function readRepositoryFile(layout: Layout): Promise<RepositoryFile | null> {
  const text = await readTextFile(layout.repositoryFile, MAX_REPOSITORY_FILE_BYTES);
  return text === null ? null : parseRepositoryFile(text, layout.repositoryFile);
}

function checkOwner(layout: Layout, file: RepositoryFile, asked: RepositoryId): void {
  if (file.repository !== asked)
    throw notOne(layout.folder, `it is repository ${file.repository}, and ${asked} was asked for`);
}

async function checkEmpty(folder: string): Promise<void> {
  const found = (await readdir(folder)).find((name) => !LEAVINGS.test(name));
  if (found !== undefined) throw notOne(folder, `it has no repository.json, but ${found}`);
}

async function writeRepositoryFile(
  layout: Layout,
  id: RepositoryId,
  { clock, random }: Seams,
): Promise<RepositoryFile> {
  const uuid = Buffer.from(random.bytes(16)).toString('hex');
  const file = newRepositoryFile(id, uuid, new Date(clock.now()).toISOString());
  await putIfAbsent(layout.repositoryFile, encodeRepositoryFile(file));
  return file;
}

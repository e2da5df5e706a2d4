/**
 * repository.json and the copy beside it: in an encrypted repository nothing can be read without the wrapped keys in it.
 * The file counts; the copy is read where it is missing or damaged, or lacks data keys that the copy has.
 */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import {
  encodeRepositoryFile,
  isEncrypted,
  parseRepositoryFile,
  type RepositoryFile,
} from '../../../schema/repository/documents.ts';
import { MAX_REPOSITORY_FILE_BYTES } from '../../../schema/repository/limits.ts';
import { isReadFailure } from './files.ts';
import { layout } from './layout.ts';
import type { Staging } from './staging.ts';

/** `from`: where it was sound. `isWhole`: file and copy are there and say the same. */
export type FoundFile = { file: RepositoryFile; from: 'file' | 'copy'; isWhole: boolean };

/**
 * Null when there is neither. REPOSITORY_NEWER; REPOSITORY_CORRUPT when neither is sound, or when they are of two
 * repositories.
 */
export async function readRepositoryFile(staging: Staging): Promise<FoundFile | null> {
  const main = await readOne(staging, layout.repositoryFile);
  const copy = await readOne(staging, layout.repositoryFileCopy);
  if (main === null && copy === null) return null;
  if (!main || 'damage' in main) {
    if (copy && 'file' in copy) return { file: copy.file, from: 'copy', isWhole: false };
    throw (main ?? copy)!.damage;
  }
  if (!copy || 'damage' in copy) return { file: main.file, from: 'file', isWhole: false };
  checkSame(staging, main.file, copy.file);
  // None is ever taken away, and the copy is written last: somebody put an older repository.json back.
  if (copy.file.dataKeys.length > main.file.dataKeys.length) return { file: copy.file, from: 'copy', isWhole: false };
  return { file: main.file, from: 'file', isWhole: main.text === copy.text };
}

type One = { file: RepositoryFile; text: string } | { damage: unknown };

async function readOne(staging: Staging, name: string): Promise<One | null> {
  try {
    const text = await staging.readText(name, MAX_REPOSITORY_FILE_BYTES);
    return text === null ? null : { text, file: parseRepositoryFile(text, staging.locate(name)) };
  } catch (error) {
    if (errorCodeOf(error) === 'REPOSITORY_CORRUPT' || isReadFailure(error)) return { damage: error };
    throw error;
  }
}

/** What never changes in the life of a repository: only in an encrypted one would its sum tell that it did. */
function checkSame(staging: Staging, main: RepositoryFile, copy: RepositoryFile): void {
  const isSame =
    main.uuid === copy.uuid && main.repository === copy.repository && isEncrypted(main) === isEncrypted(copy);
  if (isSame) return;
  const [path, copyPath] = [layout.repositoryFile, layout.repositoryFileCopy].map((name) => staging.locate(name));
  const message = `${path} and ${copyPath} are of different repositories`;
  throw new TidemarkError('REPOSITORY_CORRUPT', message, { path, copyPath });
}

/** With the file claimed (`withFileClaimed`). Durable, both, when it resolves; a death between leaves the file new and the copy old. */
export async function replaceRepositoryFile(staging: Staging, file: RepositoryFile): Promise<void> {
  const text = encodeRepositoryFile(file);
  await staging.replace(layout.repositoryFile, text);
  await staging.replace(layout.repositoryFileCopy, text);
}

/** The same: makes whole what was found. For want of a copy a full disk does not keep a repository from being opened. */
export async function mendRepositoryFile(staging: Staging, found: FoundFile, log: Log): Promise<void> {
  const { file, from, isWhole } = found;
  if (isWhole) return;
  const path = staging.locate(layout.repositoryFile);
  try {
    await replaceRepositoryFile(staging, file);
    log.warn('repository.json, or the copy beside it, was missing, damaged or old: written again', { path, from });
  } catch (error) {
    if (from === 'copy') throw error;
    log.error('there is no sound copy of repository.json, and none can be written', { path, error: String(error) });
  }
}

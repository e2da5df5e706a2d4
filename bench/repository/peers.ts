/** Other tools on the same image, each with a repository of its own beside ours. Null: not installed. */
import path from 'node:path';
import type { Image } from './image.ts';
import { outputOf, shell, versionOf } from './measure.ts';

export type Peer = {
  readonly version: string;
  readonly folder: string;
  /** Reads and verifies all data. */
  verify(): Promise<unknown>;
  /** What `verify` does besides: start, keys, index, structure. */
  verifyStart(): Promise<unknown>;
  /** Ways to restore the image below a folder, by name, and what they begin with. */
  restores: Record<string, (folder: string) => Promise<unknown>>;
  restoreStart(): Promise<unknown>;
};

type Tool = { environment: Record<string, string>; run: (...args: string[]) => Promise<string> };

/** With a cache beside the repository. */
export function resticIn(folder: string): Tool & { cache: string } {
  const cache = `${folder}-cache`;
  const environment = { RESTIC_REPOSITORY: folder, RESTIC_PASSWORD: 'of the bench', RESTIC_CACHE_DIR: cache };
  return { cache, environment, run: (...args) => outputOf('restic', args, environment) };
}

/** With what it remembers of repositories beside this one. */
export function borgBeside(folder: string): Tool & { base: string } {
  const base = `${folder}-base`;
  const environment = { BORG_BASE_DIR: base, BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK: 'yes' };
  return { base, environment, run: (...args) => outputOf('borg', args, environment) };
}

/** Defaults: repository version 2, compression auto (zstd), always encrypted, two connections to a local repository. */
export async function startRestic(root: string, { file }: Image): Promise<Peer | null> {
  const version = await versionOf('restic', ['version']);
  if (version === null) return null;
  const folder = path.join(root, 'restic');
  const { environment, run: restic } = resticIn(folder);
  await restic('init');
  await restic('backup', file);
  return {
    version,
    folder,
    verify: () => restic('check', '--read-data'),
    verifyStart: () => restic('check'),
    restores: {
      'restic restore': (into) => restic('restore', 'latest', '--target', into),
      'restic dump': (into) => shell('exec restic dump latest "$1" > "$2/dumped"', [file, into], environment),
    },
    restoreStart: () => restic('ls', 'latest'),
  };
}

/**
 * Defaults but for two things: no encryption, and only archives verified (else it reads all data twice). Compression lz4.
 */
export async function startBorg(root: string, { file }: Image): Promise<Peer | null> {
  const version = await versionOf('borg', ['--version']);
  if (version === null) return null;
  const folder = path.join(root, 'borg');
  const { environment, run: borg } = borgBeside(folder);
  await borg('init', '--encryption', 'none', folder);
  await borg('create', `${folder}::image`, file);
  return {
    version,
    folder,
    verify: () => borg('check', '--archives-only', '--verify-data', folder),
    verifyStart: () => borg('check', '--archives-only', folder),
    restores: {
      'borg extract': (into) => shell('cd "$1" && exec borg extract "$2"', [into, `${folder}::image`], environment),
    },
    restoreStart: () => borg('list', `${folder}::image`),
  };
}

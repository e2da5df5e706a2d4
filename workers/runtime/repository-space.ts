/** How full the file system of a repository is. */
import { statfs } from 'node:fs/promises';
import type { StorageDescription } from '../../engines/repository/storage/storage.ts';
import type { RepositorySpace } from '../../schema/domain/maintenance-sessions.ts';
import type { Clock } from '../../schema/domain/seams.ts';

/** Without what only root may use; null when the system does not say. */
export async function repositorySpace({ folder }: StorageDescription, clock: Clock): Promise<RepositorySpace | null> {
  try {
    const { bavail, bfree, blocks, bsize } = await statfs(folder);
    const totalBytes = (blocks - bfree + bavail) * bsize;
    return { freeBytes: bavail * bsize, totalBytes, at: new Date(clock.now()).toISOString() };
  } catch {
    return null;
  }
}

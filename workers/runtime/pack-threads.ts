/** The threads that read packs of a repository from end to end, wherever a process has it open. */
import { openPackThreads } from '../../engines/repository/maintenance/pack-threads.ts';
import type { RepositoryOptions } from '../../engines/repository/repository.ts';
import type { StorageDescription } from '../../engines/repository/storage/storage.ts';
import type { PackLaneData } from '../lanes/pack-lane.ts';

export const packThreadsOf =
  (storage: StorageDescription, count: number): NonNullable<RepositoryOptions['packWorker']> =>
  ({ uuid, keys }) =>
    openPackThreads({
      entry: new URL('../lanes/pack-lane.ts', import.meta.url),
      data: { storage, keys, uuid } satisfies PackLaneData,
      count,
    });

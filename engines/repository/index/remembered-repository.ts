/** Which repository the index beside it is of: where it was, an empty folder is a disk that is not mounted. */
import { join } from 'node:path';
import type { Log } from '../../../schema/domain/seams.ts';
import type { Remembered } from '../storage/claim-repository.ts';
import { type IndexFolder, openIndexFolder } from './index-folder.ts';

const NAME = 'repository';

export type RepositoryMemory = {
  /** Null: none was opened with this folder. */
  recall(): Promise<Remembered | null>;
  /** A folder that cannot be written is no misfortune. */
  keep(uuid: string, log: Log): Promise<void>;
};

export function openMemory(indexFolder: string | IndexFolder): RepositoryMemory {
  const isPath = typeof indexFolder === 'string';
  const folder = isPath ? openIndexFolder(indexFolder) : indexFolder;
  const file = isPath ? join(indexFolder, NAME) : NAME;
  const recall = async (): Promise<Remembered | null> => {
    const bytes = await folder.readWhole(NAME).catch(() => null);
    return bytes && { uuid: bytes.toString('utf8').trim(), file };
  };
  return {
    recall,
    keep: async (uuid, log) => {
      if ((await recall())?.uuid === uuid) return;
      await folder.replace(NAME, Buffer.from(`${uuid}\n`)).catch((error: unknown) => {
        log.warn('it cannot be remembered which repository this is', { file, error: String(error) });
      });
    },
  };
}

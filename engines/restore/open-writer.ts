/** Opens a prepared target for writing, in whichever thread the restore lane runs. */
import { open } from 'node:fs/promises';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { TargetAccess } from '../../schema/domain/restore-point.ts';
import type { DiskWriter, Seams } from '../../schema/domain/seams.ts';
import { connectNbd } from '../nbd/client.ts';

/** STORAGE_ERROR: the file cannot be opened; UNREACHABLE: the target's NBD server is gone (run `createTargets` again). */
export async function openWriter(access: TargetAccess, _seams: Seams): Promise<DiskWriter> {
  return access.data.via === 'file' ? openFileWriter(access, access.data.path) : openNbdWriter(access, access.data);
}

const asStorageError = (file: string, error: unknown): TidemarkError =>
  new TidemarkError('STORAGE_ERROR', `restore target ${file}: ${(error as Error).message}`, { file }, error);

async function openFileWriter({ sizeBytes }: TargetAccess, file: string): Promise<DiskWriter> {
  const guarded = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      throw asStorageError(file, error);
    }
  };
  const handle = await guarded(() => open(file, 'r+'));
  return {
    sizeBytes,
    write: (offset, data, signal) => {
      signal.throwIfAborted();
      return guarded(async () => {
        for (let at = 0; at < data.length;)
          at += (await handle.write(data, at, data.length - at, offset + at)).bytesWritten;
      });
    },
    // The file was made by us and truncated to its size: what nobody wrote is a hole that reads as zero. An attempt that
    // goes on from a cursor writes the same bytes at the same places, never data where there was to be zero.
    zero: async (_of, signal) => signal.throwIfAborted(),
    flush: () => guarded(() => handle.datasync()),
    close: () => guarded(() => handle.close()),
  };
}

async function openNbdWriter(
  { sizeBytes }: TargetAccess,
  data: Extract<TargetAccess['data'], { via: 'nbd' }>,
): Promise<DiskWriter> {
  const client = await connectNbd({ at: data.at, export: data.export });
  return {
    sizeBytes,
    write: (offset, bytes, signal) => client.write(offset, bytes, signal),
    // As with files: a fresh image reads as zero where nothing was written.
    zero: async (_of, signal) => signal.throwIfAborted(),
    flush: () => client.flush(),
    close: () => client.close(),
  };
}

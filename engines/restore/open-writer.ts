/** Opens a prepared target for writing, in whichever thread the restore lane runs. */
import { writeSync } from 'node:fs';
import { errorCodeOf, messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { TargetAccess } from '../../schema/domain/restore-point.ts';
import type { DiskWriter, Seams } from '../../schema/domain/seams.ts';
import { connectNbd } from '../nbd/client.ts';
import { guarded, openTarget } from './files.ts';

const WRITE_BYTES = 1024 * 1024;

/** STORAGE_ERROR: the file cannot be opened; UNREACHABLE: the target's NBD server is gone (run `createTargets` again). */
export async function openWriter(access: TargetAccess, _seams: Seams): Promise<DiskWriter> {
  return access.data.via === 'file' ? openFileWriter(access, access.data.path) : openNbdWriter(access, access.data);
}

async function openFileWriter({ sizeBytes }: TargetAccess, file: string): Promise<DiskWriter> {
  const handle = await guarded(file, () => openTarget(file));
  return {
    sizeBytes,
    write: (offset, data, signal) => {
      signal.throwIfAborted();
      return guarded(file, async () => writeFully(handle.fd, data, offset));
    },
    // The file was made by us and truncated to its size: what nobody wrote is a hole that reads as zero. An attempt that
    // goes on from a cursor writes the same bytes at the same places, never data where there was to be zero.
    zero: async (_of, signal) => signal.throwIfAborted(),
    flush: () => guarded(file, () => handle.datasync()),
    close: () => guarded(file, () => handle.close()),
  };
}

/** In the thread of the lane, which has nothing else to do: into the page cache a write is a copy. */
function writeFully(fd: number, data: Uint8Array, offset: number): void {
  for (let at = 0; at < data.length;)
    at += writeSync(fd, data, at, Math.min(WRITE_BYTES, data.length - at), offset + at);
}

async function openNbdWriter(
  { sizeBytes }: TargetAccess,
  data: Extract<TargetAccess['data'], { via: 'nbd' }>,
): Promise<DiskWriter> {
  const client = await connectNbd({ at: data.at, export: data.export });
  return {
    sizeBytes,
    write: (offset, bytes, signal) => ofStorage(client.write(offset, bytes, signal)),
    // As with files: a fresh image reads as zero where nothing was written.
    zero: async (_of, signal) => signal.throwIfAborted(),
    flush: () => ofStorage(client.flush()),
    close: () => client.close(),
  };
}

/** What the daemon could not do to the image (a full disk) is the storage's affair, not a hypervisor's. */
async function ofStorage(done: Promise<void>): Promise<void> {
  try {
    await done;
  } catch (error) {
    if (errorCodeOf(error) !== 'HYPERVISOR_ERROR') throw error;
    throw new TidemarkError('STORAGE_ERROR', `restore target: ${messageOf(error)}`, {}, error);
  }
}

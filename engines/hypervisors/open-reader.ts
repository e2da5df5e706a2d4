/**
 * Opens a disk for reading from its `DiskAccess`, in whichever thread and on whichever machine the lane runs: plain
 * data in, bytes and extents out, no hypervisor control inside.
 */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { AllocationState, Extent } from '../../schema/domain/extents.ts';
import type { DiskAccess, Endpoint } from '../../schema/domain/hypervisor.ts';
import type { DiskReader, Seams } from '../../schema/domain/seams.ts';
import { connectNbd, type NbdClient } from '../nbd/client.ts';
import { allocationFlag, BASE_ALLOCATION, DIRTY_FLAG } from '../nbd/codec.ts';
import { openSimulatedReader } from './simulated/reader.ts';

/** What QEMU rounds the length of a raw image up to when it exports it; the padding reads as zero. */
const EXPORT_ROUNDING_BYTES = 512;

/**
 * UNREACHABLE, HYPERVISOR_ERROR: see `connectNbd`. TRACKING_LOST: the dirty bitmap of `access.changes` is gone.
 * BAD_DISK: the export is not of the disk's size, so it is not the disk that was inspected.
 */
export async function openReader(access: DiskAccess, seams: Seams): Promise<DiskReader> {
  const { data, diskKey, run } = access;
  seams.log.debug('opening a disk to read', { run, diskKey, via: data.via });
  if (data.via === 'nbd') return await openNbdReader(access, data);
  if (data.via === 'simulated') return await openSimulatedReader(access, data.model);
  throw new TidemarkError('HYPERVISOR_ERROR', `disk ${diskKey}: this version has no reader for VHDX files`, {
    diskKey,
  });
}

type NbdChanges = Extract<DiskAccess['changes'], { via: 'nbd' }>;

async function openNbdReader(
  access: DiskAccess,
  data: Extract<DiskAccess['data'], { via: 'nbd' }>,
): Promise<DiskReader> {
  const changes = access.changes?.via === 'nbd' ? access.changes : null;
  const together = changes !== null && changes.export === data.export && sameEndpoint(changes.at, data.at);
  const contexts = together ? [BASE_ALLOCATION, changes.context] : [BASE_ALLOCATION];
  const main = await connectNbd({ at: data.at, export: data.export, contexts });
  let other: NbdClient | null = null;
  try {
    checkSize(access, main);
    if (changes && !together) {
      other = await connectNbd({ at: changes.at, export: changes.export, contexts: [changes.context] });
      checkSize(access, other);
    }
  } catch (error) {
    await main.close();
    await other?.close();
    throw error;
  }
  return nbdReader(access, main, changes, other ?? main);
}

const sameEndpoint = (a: Endpoint, b: Endpoint): boolean =>
  'unix' in a ? 'unix' in b && a.unix === b.unix : 'host' in b && a.host === b.host && a.port === b.port;

function checkSize(access: DiskAccess, client: NbdClient): void {
  const padding = client.sizeBytes - access.sizeBytes;
  if (padding >= 0 && padding < EXPORT_ROUNDING_BYTES) return;
  throw new TidemarkError(
    'BAD_DISK',
    `disk ${access.diskKey} has ${access.sizeBytes} bytes, but its export has ${client.sizeBytes}`,
    { diskKey: access.diskKey, sizeBytes: access.sizeBytes, exportBytes: client.sizeBytes },
  );
}

function nbdReader(access: DiskAccess, data: NbdClient, changes: NbdChanges | null, changesAt: NbdClient): DiskReader {
  const check = (of: Extent): void => {
    if (of.offset < 0 || of.length < 0 || of.offset + of.length > access.sizeBytes)
      throw new RangeError(`${of.offset}+${of.length} is outside the ${access.sizeBytes} bytes of ${access.diskKey}`);
  };
  return {
    sizeBytes: access.sizeBytes,
    async *allocatedExtents(of) {
      check(of);
      for await (const { offset, length, flags } of data.status(BASE_ALLOCATION, of))
        yield { offset, length, state: stateOf(flags) };
    },
    async *changedExtents(of) {
      check(of);
      if (!changes)
        throw new TidemarkError('TRACKING_LOST', `disk ${access.diskKey} was opened without changed block tracking`, {
          diskKey: access.diskKey,
        });
      for await (const { offset, length, flags } of changesAt.status(changes.context, of))
        if (flags & DIRTY_FLAG) yield { offset, length };
    },
    async read(of, into, signal) {
      check(of);
      await data.read(of, into, signal);
    },
    async close() {
      await data.close();
      if (changesAt !== data) await changesAt.close();
    },
  };
}

/** A hole that does not read as zero is data: only the zero flag may spare a read. */
function stateOf(flags: number): AllocationState {
  if ((flags & allocationFlag.zero) === 0) return 'data';
  return flags & allocationFlag.hole ? 'unallocated' : 'zero';
}

/** Resolves windows of sealed disks for restores; a connection pins its restore point. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf, windowExtent, WINDOW_BYTES } from '../../../schema/domain/extents.ts';
import type { ManifestDisk } from '../../../schema/domain/restore-point.ts';
import type { RecordPlace, RestoreHello, RestoreSource } from '../../../schema/domain/seams.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import type { DigestIndex } from './digest-index.ts';
import type { Parts } from './parts.ts';
import { requireSealed } from './points.ts';

export function createRestoreSource({ points, pages, index, reliance }: Parts): RestoreSource {
  const pins = new Map<string, { hello: RestoreHello; disk: ManifestDisk; release: () => void }>();
  return {
    begin: async (connection, hello) => {
      const { manifest } = requireSealed(points, hello.restorePointId);
      const disk = manifest.disks.find((one) => one.diskKey === hello.diskKey);
      if (!disk)
        throw new TidemarkError('NOT_FOUND', `restore point ${hello.restorePointId} has no disk ${hello.diskKey}`, {
          ...hello,
        });
      pins.get(connection)?.release();
      pins.set(connection, { hello, disk, release: reliance.hold(disk, hello.restorePointId) });
      return { sizeBytes: disk.sizeBytes, blockSize: disk.blockSize };
    },
    resolve: async (connection, windowIndex) => {
      const disk = pins.get(connection)?.disk;
      if (!disk) throw new TidemarkError('PROTOCOL_ERROR', `connection ${connection} has not begun`, { connection });
      const { first, count } = blocksOf(disk, windowIndex);
      const digests = Buffer.alloc(count * DIGEST_BYTES);
      const places: (RecordPlace | null)[] = [];
      // A window lies in one leaf: a leaf has 256 blocks, a window at most as many.
      const leaf = await pages.leaf(disk, Math.floor(first / PAGE_ENTRIES));
      for (let at = 0; at < count; at += 1) {
        const entry = entryOf(leaf, (first + at) % PAGE_ENTRIES);
        digests.set(entry, at * DIGEST_BYTES);
        places.push(isZero(entry) ? null : placeOf(index, disk, first + at, entry));
      }
      return { digests, places };
    },
    end: async (connection) => {
      pins.get(connection)?.release();
      pins.delete(connection);
    },
  };
}

function blocksOf(disk: ManifestDisk, windowIndex: number): { first: number; count: number } {
  if (!Number.isSafeInteger(windowIndex) || windowIndex < 0 || windowIndex >= windowCountOf(disk.sizeBytes))
    throw new TidemarkError('PROTOCOL_ERROR', `disk ${disk.diskKey} has no window ${windowIndex}`, { windowIndex });
  const { length } = windowExtent(windowIndex, disk.sizeBytes);
  return { first: (windowIndex * WINDOW_BYTES) / disk.blockSize, count: Math.ceil(length / disk.blockSize) };
}

function placeOf(index: DigestIndex, disk: ManifestDisk, block: number, entry: Uint8Array): RecordPlace {
  const place = index.lookup(entry)?.place;
  if (place?.rawLength === blockLengthOf(block, disk.sizeBytes, disk.blockSize)) return place;
  const digest = Buffer.from(entry).toString('hex');
  throw new TidemarkError('DAMAGED_BLOCK', `block ${block} of disk ${disk.diskKey} is missing: ${digest}`, {
    diskKey: disk.diskKey,
    block,
    digest,
  });
}

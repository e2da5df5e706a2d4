/** Resolves windows of sealed disks for restores; a connection pins its restore point. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf, windowExtent, WINDOW_BYTES } from '../../../schema/domain/extents.ts';
import type { ManifestDisk } from '../../../schema/domain/restore-point.ts';
import type { RecordPlace, RestoreHello, RestoreSource } from '../../../schema/domain/seams.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import { damageOf } from './damages.ts';
import type { DigestIndex } from './digest-index.ts';
import { soundOrNull } from './page-reader.ts';
import type { Parts } from './parts.ts';
import { requireSealed } from './points.ts';
import { wholePointsAround } from './whole-points.ts';

type Pinned = { hello: RestoreHello; disk: ManifestDisk };

export function createRestoreSource(parts: Parts): RestoreSource {
  const { points, pages, index, damages } = parts;
  const pins = new Map<string, Pinned>();

  function pinOf(connection: string): Pinned {
    const pin = pins.get(connection);
    if (pin) return pin;
    throw new TidemarkError('PROTOCOL_ERROR', `connection ${connection} has not begun`, { connection });
  }

  /** For a person in the middle of a disaster: what is broken, and what to restore instead. */
  async function refusal({ hello, disk }: Pinned, block: number, why: string): Promise<TidemarkError> {
    const { restorePointId, diskKey } = hello;
    const around = await wholePointsAround(parts, restorePointId);
    const at = block * disk.blockSize;
    return new TidemarkError(
      'DAMAGED_BLOCK',
      `restore point ${restorePointId}, disk ${diskKey}, block ${block} at byte ${at}: ${why}; ${textOf(around)}`,
      { restorePointId, diskKey, block, ...around },
    );
  }

  return {
    begin: async (connection, hello) => {
      const { manifest } = requireSealed(points, hello.restorePointId);
      const disk = manifest.disks.find((one) => one.diskKey === hello.diskKey);
      if (!disk)
        throw new TidemarkError('NOT_FOUND', `restore point ${hello.restorePointId} has no disk ${hello.diskKey}`, {
          ...hello,
        });
      pins.set(connection, { hello, disk });
      return { sizeBytes: disk.sizeBytes, blockSize: disk.blockSize };
    },
    resolve: async (connection, windowIndex) => {
      const pin = pinOf(connection);
      const { disk } = pin;
      const { first, count } = blocksOf(disk, windowIndex);
      // A window lies in one leaf: a leaf has 256 blocks, a window at most as many.
      const leaf = await soundOrNull(() => pages.leaf(disk, Math.floor(first / PAGE_ENTRIES)));
      if (!leaf) throw await refusal(pin, first, 'its map page is damaged or missing');
      const digests = Buffer.alloc(count * DIGEST_BYTES);
      const places: (RecordPlace | null)[] = [];
      for (let at = 0; at < count; at += 1) {
        const entry = entryOf(leaf, (first + at) % PAGE_ENTRIES);
        digests.set(entry, at * DIGEST_BYTES);
        const place = isZero(entry) ? null : placeOf(index, disk, first + at, entry);
        if (place === undefined) throw await refusal(pin, first + at, missingText(entry));
        places.push(place);
      }
      return { digests, places };
    },
    damaged: async (connection, windowIndex, blockOfWindow, place, failure) => {
      const pin = pinOf(connection);
      const block = blocksOf(pin.disk, windowIndex).first + blockOfWindow;
      const found = damageOf(failure);
      const leaf = await soundOrNull(() => pages.leaf(pin.disk, Math.floor(block / PAGE_ENTRIES)));
      if (!found || !leaf) throw new TidemarkError(failure.code, failure.message, failure.details);
      const digest = entryOf(leaf, block % PAGE_ENTRIES);
      damages.met({ digest, kind: 'record', place }, failure);
      const other = placeOf(index, pin.disk, block, digest);
      if (other && !(other.pack === place.pack && other.offset === place.offset)) return other;
      throw await refusal(pin, block, `damaged in pack ${place.pack} at ${place.offset}: ${found.why}`);
    },
    end: async (connection) => {
      pins.delete(connection);
    },
  };
}

const missingText = (digest: Uint8Array): string => `missing: ${Buffer.from(digest).toString('hex')}`;

function textOf({ before, after }: Awaited<ReturnType<typeof wholePointsAround>>): string {
  const whole = [before && `${before} before it`, after && `${after} after it`].filter((one) => one !== null);
  return whole.length > 0 ? `whole: restore point ${whole.join(', ')}` : 'no other restore point of the VM is whole';
}

function blocksOf(disk: ManifestDisk, windowIndex: number): { first: number; count: number } {
  if (!Number.isSafeInteger(windowIndex) || windowIndex < 0 || windowIndex >= windowCountOf(disk.sizeBytes))
    throw new TidemarkError('PROTOCOL_ERROR', `disk ${disk.diskKey} has no window ${windowIndex}`, { windowIndex });
  const { length } = windowExtent(windowIndex, disk.sizeBytes);
  return { first: (windowIndex * WINDOW_BYTES) / disk.blockSize, count: Math.ceil(length / disk.blockSize) };
}

/** Undefined when it is nowhere. */
function placeOf(index: DigestIndex, disk: ManifestDisk, block: number, entry: Uint8Array): RecordPlace | undefined {
  const place = index.lookup(entry)?.place;
  return place?.rawLength === blockLengthOf(block, disk.sizeBytes, disk.blockSize) ? place : undefined;
}

/** Resolves windows of sealed disks for restores; a connection pins its restore point. */
import { errorCodeOf, errorTable, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { windowCountOf, windowExtent, WINDOW_BYTES } from '../../../schema/domain/extents.ts';
import type { ManifestDisk } from '../../../schema/domain/restore-point.ts';
import type { RecordPlace, RestoreHello, RestoreSource } from '../../../schema/domain/seams.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import { type DamageCode, damageOf, digestOfMissing } from './damages.ts';
import type { DigestIndex } from './digest-index.ts';
import type { Parts } from './parts.ts';
import { requireSealed } from './points.ts';
import { wholePointsAround } from './whole-points.ts';

type Pinned = { hello: RestoreHello; disk: ManifestDisk; release: () => void };
type Window = Awaited<ReturnType<RestoreSource['resolve']>>;

/** `digest`: of the page or record that is nowhere, as far as is known. `code`: of the last copy that was looked at. */
class LostBlock extends Error {
  readonly block: number;
  readonly digest: Uint8Array | null;
  readonly code: DamageCode;

  constructor(of: { block: number; digest: Uint8Array | null; code: DamageCode }, why: string) {
    super(why);
    this.block = of.block;
    this.digest = of.digest;
    this.code = of.code;
  }
}

/** `bringBack`: whether the trash had it. */
export function createRestoreSource(parts: Parts, bringBack: (digest: Uint8Array) => Promise<boolean>): RestoreSource {
  const { points, damages, reliance } = parts;
  const pins = new Map<string, Pinned>();

  function pinOf(connection: string): Pinned {
    const pin = pins.get(connection);
    if (pin) return pin;
    throw new TidemarkError('PROTOCOL_ERROR', `connection ${connection} has not begun`, { connection });
  }

  /** `work`, with what it misses looked for in the trash. */
  async function orRefused<T>(pin: Pinned, work: () => Promise<T>): Promise<T> {
    for (;;) {
      try {
        return await work();
      } catch (error) {
        if (!(error instanceof LostBlock)) throw error;
        if (error.digest === null || !(await bringBack(error.digest))) throw await refusal(parts, pin, error);
      }
    }
  }

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
      const pin = pinOf(connection);
      return orRefused(pin, () => resolveWindow(parts, pin.disk, windowIndex));
    },
    damaged: async (connection, windowIndex, blockOfWindow, place, failure) => {
      const pin = pinOf(connection);
      const found = damageOf(failure);
      if (!found) throw new TidemarkError(failure.code, failure.message, failure.details);
      const block = blocksOf(pin.disk, windowIndex).first + blockOfWindow;
      const why = `damaged in pack ${place.pack} at ${place.offset}: ${found.why}`;
      return orRefused(pin, async () => {
        const digest = entryOf(await leafOf(parts, pin.disk, block), block % PAGE_ENTRIES);
        damages.met({ digest, kind: 'record', place }, failure);
        const other = placeOf(parts.index, pin.disk, block, digest);
        if (!other || (other.pack === place.pack && other.offset === place.offset))
          throw new LostBlock({ block, digest, code: found.code }, why);
        return other;
      });
    },
    end: async (connection) => {
      pins.get(connection)?.release();
      pins.delete(connection);
    },
  };
}

async function resolveWindow(parts: Parts, disk: ManifestDisk, windowIndex: number): Promise<Window> {
  const { first, count } = blocksOf(disk, windowIndex);
  const digests = Buffer.alloc(count * DIGEST_BYTES);
  const places: (RecordPlace | null)[] = [];
  // A window lies in one leaf: a leaf has 256 blocks, a window at most as many.
  const leaf = await leafOf(parts, disk, first);
  for (let at = 0; at < count; at += 1) {
    const entry = entryOf(leaf, (first + at) % PAGE_ENTRIES);
    digests.set(entry, at * DIGEST_BYTES);
    const place = isZero(entry) ? null : placeOf(parts.index, disk, first + at, entry);
    if (place === undefined)
      throw new LostBlock({ block: first + at, digest: entry, code: parts.damages.codeOf(entry) }, missingText(entry));
    places.push(place);
  }
  return { digests, places };
}

async function leafOf({ pages, damages }: Parts, disk: ManifestDisk, block: number): Promise<Uint8Array> {
  try {
    return await pages.leaf(disk, Math.floor(block / PAGE_ENTRIES));
  } catch (error) {
    const code = errorCodeOf(error);
    if (!code || errorTable[code].disposition !== 'damage') throw error;
    const digest = digestOfMissing(error);
    const lost = digest ? damages.codeOf(digest) : (damageOf(error)?.code ?? 'DAMAGED_BLOCK');
    throw new LostBlock({ block, digest, code: lost }, messageOf(error));
  }
}

/** For a person in the middle of a disaster: what is broken, and what to restore instead. */
async function refusal(parts: Parts, { hello, disk }: Pinned, lost: LostBlock): Promise<TidemarkError> {
  const { restorePointId, diskKey } = hello;
  const { block, message: why } = lost;
  const around = await wholePointsAround(parts, restorePointId);
  const at = block * disk.blockSize;
  return new TidemarkError(
    lost.code,
    `restore point ${restorePointId}, disk ${diskKey}, block ${block} at byte ${at}: ${why}; ${textOf(around)}`,
    { restorePointId, diskKey, block, ...around },
  );
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

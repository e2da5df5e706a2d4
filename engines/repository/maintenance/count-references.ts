/**
 * What each restore point and each VM needs, and what of it nobody else does: from the maps, block by block. Exact but for
 * digests alike in their first 64 bits, and for blocks that a restore point has more than once: its `storedBytes` counts
 * each place. Memory does not grow with the repository: ids are taken in parts, and maps walked once for each part.
 */
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { PointStatistics } from '../../../schema/domain/maintenance.ts';
import { blockCountOf } from '../../../schema/domain/extents.ts';
import { isZero } from '../../../schema/repository/digest.ts';
import { PAGE_ENTRIES, RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import { createPageReader, soundOrNull, type DiskMap } from '../restore-point/page-reader.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { keyOfDigest, ReferenceTable } from './reference-table.ts';

/** Ids at once: 60 MB at most. */
const MOST_IDS = 1024 * 1024;

export type References = {
  /** In the order of `points`. */
  byPoint: PointStatistics[];
  /** In the order of `vms`. */
  byVm: PointStatistics[];
  vms: string[];
  /** Of distinct blocks. */
  deduplicatedBytes: number;
  storedBytes: number;
};

export type CountParts = Pick<MaintenanceParts, 'records' | 'unwatched' | 'source' | 'damages'>;

const nothing = (): PointStatistics => ({ logicalBytes: 0, uniqueBytes: 0, storedBytes: 0 });

/** `mostIds`: see `MOST_IDS`. */
export async function countReferences(
  parts: CountParts,
  points: readonly SealOutcome[],
  signal: AbortSignal,
  mostIds = MOST_IDS,
): Promise<References> {
  const vms = [...new Set(points.map(({ manifest }) => manifest.vm.vmId))];
  const references: References = {
    byPoint: points.map(nothing),
    byVm: vms.map(nothing),
    vms,
    deduplicatedBytes: 0,
    storedBytes: 0,
  };
  const vmOf = points.map(({ manifest }) => vms.indexOf(manifest.vm.vmId));
  // A VM after the other: see `Count`.
  const order = [...points.keys()].sort((a, b) => vmOf[a]! - vmOf[b]!);
  const partCount = Math.max(1, Math.ceil(parts.records.recordCount() / mostIds));
  for (let part = 0; part < partCount; part += 1) {
    const count = new Count(parts, references, vmOf, { part, partCount, signal });
    for (const point of order) for (const disk of points[point]!.manifest.disks) await count.addDisk(point, disk);
  }
  for (const [point, { logicalBytes }] of references.byPoint.entries())
    references.byVm[vmOf[point]!]!.logicalBytes += logicalBytes;
  return references;
}

/** Of a block: who needs it, which VM met it last, bytes stored. Of a page the same, and what lies below it. */
const OWNER = 0;
const LAST_VM = 1;
const STORED = 2;
/** An owner is a restore point, or (with this bit) all of them of one VM, or more than that. */
const OF_VM = 0x8000_0000;
const MANY = 0xffff_ffff;

type Part = { part: number; partCount: number; signal: AbortSignal };
/** Bytes: before and after compression. */
type Sums = [number, number];

class Count {
  readonly #parts: CountParts;
  readonly #pages: ReturnType<typeof createPageReader>;
  readonly #to: References;
  readonly #vmOf: readonly number[];
  readonly #part: Part;
  readonly #blocks = new ReferenceTable(3);
  readonly #seen = new ReferenceTable(2, true);

  constructor(parts: CountParts, to: References, vmOf: readonly number[], part: Part) {
    this.#parts = parts;
    this.#pages = createPageReader({ ...parts, index: parts.unwatched });
    this.#to = to;
    this.#vmOf = vmOf;
    this.#part = part;
  }

  /** Restore points of one VM one after the other. */
  async addDisk(point: number, map: DiskMap): Promise<void> {
    if (map.height === 0) return;
    const [logical, stored] = await this.#below(point, map, Buffer.from(map.root, 'hex'), map.height, 0);
    this.#to.byPoint[point]!.logicalBytes += logical;
    this.#to.byPoint[point]!.storedBytes += stored;
  }

  /** What a page that was met leads to is looked at again only when it tells something new of who needs it. */
  async #below(point: number, map: DiskMap, digest: Uint8Array, level: number, first: number): Promise<Sums> {
    const [high, low] = keyOfDigest(digest);
    const key = [(high ^ level) >>> 0, (low ^ map.blockSize) >>> 0] as const;
    const known = this.#seen.find(...key);
    const owner = known < 0 ? point : this.#join(this.#seen.get(known, OWNER), point);
    const vm = this.#vmOf[point]!;
    if (known >= 0 && owner === this.#seen.get(known, OWNER) && vm === this.#seen.get(known, LAST_VM))
      return this.#seen.sumsOf(known);
    this.#part.signal.throwIfAborted();
    const page = await soundOrNull(() => this.#pages.page(digest));
    const sums = page ? await this.#inPage(point, map, page, level, first) : ([0, 0] as Sums);
    const slot = known < 0 ? this.#seen.add(...key) : this.#seen.find(...key);
    this.#seen.set(slot, OWNER, owner);
    this.#seen.set(slot, LAST_VM, vm);
    this.#seen.setSums(slot, sums);
    return sums;
  }

  async #inPage(point: number, map: DiskMap, page: Uint8Array, level: number, first: number): Promise<Sums> {
    const sums: Sums = [0, 0];
    const span = PAGE_ENTRIES ** (level - 1);
    const blocks = blockCountOf(map.sizeBytes, map.blockSize);
    for (let at = 0; at * 32 < page.byteLength && first + at * span < blocks; at += 1) {
      const entry = entryOf(page, at);
      const block = first + at * span;
      const [logical, stored] =
        level === 1
          ? this.#block(point, entry, blockLengthOf(block, map.sizeBytes, map.blockSize))
          : await this.#below(point, map, entry, level - 1, block);
      sums[0] += logical;
      sums[1] += stored;
    }
    return sums;
  }

  #block(point: number, digest: Uint8Array, length: number): Sums {
    if (isZero(digest)) return [0, 0];
    const [high, low] = keyOfDigest(digest);
    if (low % this.#part.partCount !== this.#part.part) return [0, 0];
    const known = this.#blocks.find(high, low);
    const slot = known < 0 ? this.#newBlock(point, digest, length) : known;
    const stored = this.#blocks.get(slot, STORED);
    if (known >= 0) this.#share(slot, point, stored);
    const vm = this.#vmOf[point]!;
    if (known < 0 || this.#blocks.get(slot, LAST_VM) !== vm) this.#to.byVm[vm]!.storedBytes += stored;
    this.#blocks.set(slot, LAST_VM, vm);
    return [length, stored];
  }

  #newBlock(point: number, digest: Uint8Array, length: number): number {
    const place = this.#parts.records.lookup(this.#parts.unwatched.idOf(digest))?.place;
    const stored = place ? RECORD_HEADER_BYTES + place.storedLength : 0;
    const slot = this.#blocks.add(...keyOfDigest(digest));
    this.#blocks.set(slot, OWNER, point);
    this.#blocks.set(slot, STORED, stored);
    this.#to.deduplicatedBytes += length;
    this.#to.storedBytes += stored;
    this.#to.byPoint[point]!.uniqueBytes += stored;
    this.#to.byVm[this.#vmOf[point]!]!.uniqueBytes += stored;
    return slot;
  }

  #share(slot: number, point: number, stored: number): void {
    const before = this.#blocks.get(slot, OWNER);
    const owner = this.#join(before, point);
    if (owner === before) return;
    if (before < OF_VM) this.#to.byPoint[before]!.uniqueBytes -= stored;
    if (owner === MANY) this.#to.byVm[before < OF_VM ? this.#vmOf[before]! : before - OF_VM]!.uniqueBytes -= stored;
    this.#blocks.set(slot, OWNER, owner);
  }

  #join(owner: number, point: number): number {
    if (owner === point || owner === MANY) return owner;
    const vm = owner < OF_VM ? this.#vmOf[owner]! : owner - OF_VM;
    return vm === this.#vmOf[point] ? OF_VM + vm : MANY;
  }
}

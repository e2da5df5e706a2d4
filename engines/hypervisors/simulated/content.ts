/** Bytes of a simulated disk: pseudo-random, a function of seed and place, so that nothing is stored; or those of an image. */
import { closeSync, openSync, readSync } from 'node:fs';
import { type AllocatedExtent, type Extent, endOf, intersect } from '../../../schema/domain/extents.ts';

/** `image`: a raw file with what was there before the writes; behind its end are zeros. */
export type DiskAtMoment = {
  sizeBytes: number;
  seed: number;
  image?: string | undefined;
  identity: string;
  writes: (Extent & { seed: number })[];
};

const PAGE_BYTES = 4096;
const ALLOCATION_BYTES = 1024 * 1024;

/** Mixes two numbers into 32 bits, never zero. */
function mix(seed: number, index: number): number {
  let x = (Math.imul(seed ^ 0x9e37_79b9, 0x85eb_ca6b) ^ Math.imul(index + 1, 0xc2b2_ae35)) >>> 0;
  x = Math.imul(x ^ (x >>> 16), 0x7feb_352d) >>> 0;
  x = Math.imul(x ^ (x >>> 15), 0x846c_a68b) >>> 0;
  return (x ^ (x >>> 16)) >>> 0 || 1;
}

function pageOf(seed: number, pageIndex: number): Uint8Array {
  const words = new Uint32Array(PAGE_BYTES / 4);
  let x = mix(seed, pageIndex);
  for (let i = 0; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    words[i] = x;
  }
  return new Uint8Array(words.buffer);
}

/** A quarter of the disk's mebibytes was never written. */
const isAllocated = (seed: number, unitIndex: number): boolean => mix(seed, unitIndex) % 4 !== 0;

function paint(seed: number, of: Extent, into: Uint8Array, at: number): void {
  for (let place = of.offset; place < endOf(of);) {
    const pageIndex = Math.floor(place / PAGE_BYTES);
    const end = Math.min((pageIndex + 1) * PAGE_BYTES, endOf(of));
    const from = place - pageIndex * PAGE_BYTES;
    into.set(pageOf(seed, pageIndex).subarray(from, from + end - place), at + place - of.offset);
    place = end;
  }
}

/** Fills `into` with what the disk holds in `of`. A write with seed 0 wrote zeros. */
export function contentOf(disk: DiskAtMoment, of: Extent, into: Uint8Array): void {
  if (disk.image === undefined) paintBase(disk, of, into);
  else readImage(disk.image, of, into);
  for (const write of disk.writes) {
    const part = intersect(write, of);
    if (!part) continue;
    const at = part.offset - of.offset;
    if (write.seed === 0) into.fill(0, at, at + part.length);
    else paint(write.seed, part, into, at);
  }
}

function paintBase(disk: DiskAtMoment, of: Extent, into: Uint8Array): void {
  into.fill(0);
  for (const part of baseExtents(disk, of))
    if (part.state === 'data') paint(disk.seed, part, into, part.offset - of.offset);
}

function readImage(image: string, { offset, length }: Extent, into: Uint8Array): void {
  const file = openSync(image, 'r');
  try {
    const got = readSync(file, into, 0, length, offset);
    into.fill(0, got, length);
  } finally {
    closeSync(file);
  }
}

/** Allocation without the guest's writes, unit by unit; an image counts as written whole. */
function* baseExtents(disk: DiskAtMoment, of: Extent): Generator<AllocatedExtent> {
  if (disk.image !== undefined) yield { ...of, state: 'data' };
  else yield* seededExtents(disk.seed, of);
}

function* seededExtents(seed: number, of: Extent): Generator<AllocatedExtent> {
  for (let place = of.offset; place < endOf(of);) {
    const unitIndex = Math.floor(place / ALLOCATION_BYTES);
    const end = Math.min((unitIndex + 1) * ALLOCATION_BYTES, endOf(of));
    yield { offset: place, length: end - place, state: isAllocated(seed, unitIndex) ? 'data' : 'unallocated' };
    place = end;
  }
}

/** Covers `of`, in order: a unit that any write touched is data. */
export function* allocationOf(disk: DiskAtMoment, of: Extent): Generator<AllocatedExtent> {
  for (const part of baseExtents(disk, of)) {
    const written = disk.writes.some((write) => intersect(write, part) !== null);
    yield written ? { ...part, state: 'data' } : part;
  }
}

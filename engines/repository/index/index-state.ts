/**
 * What the index consists of. A record is in a segment if its pack is covered, else in the delta, which may for a moment
 * still have what a segment has.
 */
import { Delta } from './delta.ts';
import { offsetAt, packAt, type NewRecord } from './entry.ts';
import { DamagedPlaces, PackNumbers } from './packs.ts';
import type { Segment } from './segment.ts';

export type IndexState = {
  packs: PackNumbers;
  /** Closed packs of which the segments hold every record, by number. */
  covered: Set<number>;
  /** Closed packs of which the delta holds every record, by number. */
  complete: Set<number>;
  /** Packs that were dropped: what is said late of their records is not believed. */
  gone: Set<string>;
  damaged: DamagedPlaces;
  delta: Delta;
  /** The older first. */
  segments: Segment[];
  /** False while segments that turned out to be damaged are made up for from the packs. */
  isWhole: boolean;
};

export const newState = (packs = new PackNumbers(), damaged = new DamagedPlaces()): IndexState => ({
  packs,
  covered: new Set(),
  complete: new Set(),
  gone: new Set(),
  damaged,
  delta: new Delta(),
  segments: [],
  isWhole: true,
});

/** Records that are durable. Nothing for those that are known, and for those of packs that are gone. */
export function addRecords({ packs, covered, gone, delta }: IndexState, records: readonly NewRecord[]): void {
  for (const record of records) {
    if (gone.has(record.place.pack)) continue;
    const pack = packs.numberOf(record.place.pack);
    if (!covered.has(pack)) delta.add(record, pack);
  }
}

export function dropPack({ packs, covered, complete, gone, segments }: IndexState, name: string): void {
  gone.add(name);
  const number = packs.drop(name);
  if (number === undefined) return;
  covered.delete(number);
  complete.delete(number);
  for (const segment of segments) segment.deadCount += segment.countOfPack(number);
}

/** Whether records of that pack are there, and only the delta has them. */
export const isUncovered = ({ packs, covered }: IndexState, pack: number): boolean =>
  packs.has(pack) && !covered.has(pack);

/** Whether the entry's pack is there and the place not damaged. */
export function isSoundAt({ packs, damaged }: IndexState, bytes: Buffer, base: number): boolean {
  const pack = packs.nameOf(packAt(bytes, base));
  return pack !== undefined && (damaged.isEmpty || !damaged.has(pack, offsetAt(bytes, base)));
}

/** From here on questions go to it as well; packs may have been dropped since it was written. */
export function noteDead(segment: Segment, packs: PackNumbers): void {
  segment.deadCount = 0;
  for (const [number, count] of segment.packs()) if (!packs.has(number)) segment.deadCount += count;
}

/** Takes a pack out of use: its last look, in one synchronous turn, then the trash. */
import type { NewRecord, RecordIndex } from '../index/record-index.ts';
import type { PackListing } from '../pack/pack-reader.ts';
import type { PackRecord } from '../../../schema/repository/pack.ts';
import type { Living } from './living.ts';

type Shelf = { records: RecordIndex; living: Living };

/**
 * Whether a record of this pack is the one that serves a living id. Also when the index knows none of that id: a lane
 * may have written it and not told yet.
 */
export function isNeeded({ records, living }: Shelf, pack: string, { header, offset }: PackRecord): boolean {
  if (header.kind === 'fill' || !living.isLive(header.id)) return false;
  const place = records.lookup(header.id)?.place;
  return place === undefined || (place.pack === pack && place.offset === offset);
}

/**
 * From here on the copies serve in place of the pack, and an offer of what was dead is answered `want`. False, and nothing
 * changed, when something of it is needed by now that was not copied, or that is locked by now. `copies`: durable, by
 * offset in the pack.
 */
export function replaceInIndex(shelf: Shelf, listing: PackListing, copies: ReadonlyMap<number, NewRecord>): boolean {
  const { packId } = listing;
  const mayGo = (record: PackRecord): boolean => copies.has(record.offset) && !shelf.living.isLocked(record.header.id);
  if (listing.records.some((record) => !mayGo(record) && isNeeded(shelf, packId, record))) return false;
  shelf.records.dropPacks(new Set([packId]));
  shelf.records.apply([...copies.values()]);
  return true;
}

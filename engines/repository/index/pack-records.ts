/** What a pack's footer says, as the index takes it. */
import type { PackListing } from '../pack/pack-reader.ts';
import type { NewRecord } from './entry.ts';

export function recordsOf(listing: PackListing): NewRecord[] {
  const records: NewRecord[] = [];
  for (const { header, offset } of listing.records) {
    if (header.kind === 'fill') continue;
    const { storedLength, rawLength, codec } = header;
    const place = { pack: listing.packId, offset, storedLength, rawLength, codec };
    records.push({ id: header.id, kind: header.kind, place, writer: header.restorePointId });
  }
  return records;
}

/** Records as ten years of backups would leave them: made from numbers, so that none has to be kept. */
import type { NewRecord } from '../../engines/repository/index/record-index.ts';
import type { PackListing } from '../../engines/repository/pack/pack-reader.ts';
import type { RestorePointId } from '../../schema/domain/ids.ts';

/** As in packs of 128 MiB with blocks of 1 MiB that compress to a half. */
export const PACK_RECORDS = 256;
const WRITER_PACKS = 64;

export const packName = (pack: number): string =>
  (mix(pack) % 256).toString(16).padStart(2, '0') + pack.toString(16).padStart(30, '0');
export const packOf = (name: string): number => parseInt(name.slice(2), 16);

/** Ids from `2 ** 30` on are of no record. */
export function idOf(record: number): Buffer {
  const id = Buffer.allocUnsafe(32);
  for (let word = 0; word < 8; word += 1) id.writeUInt32LE(mix(mix(record) + word), word * 4);
  return id;
}

export function recordsOfPack(pack: number): NewRecord[] {
  const name = packName(pack);
  const writer = mix(Math.floor(pack / WRITER_PACKS))
    .toString(16)
    .padStart(32, '0') as RestorePointId;
  return Array.from({ length: PACK_RECORDS }, (_, at) => {
    const storedLength = 400_000 + (mix(pack + at) % 200_000);
    const place = { pack: name, offset: 64 + at * 600_128, storedLength, rawLength: 2 ** 20, codec: 'zstd' as const };
    return { id: idOf(pack * PACK_RECORDS + at), kind: 'block' as const, place, writer };
  });
}

/** As the footer of that pack would say. */
export const listingOf = (pack: number): PackListing => ({
  packId: packName(pack),
  contents: 'blocks',
  records: recordsOfPack(pack).map(({ id, kind, place, writer }) => ({
    header: { kind, ...place, id, restorePointId: writer, payloadSum: id.subarray(0, 16) },
    offset: place.offset,
  })),
});

/** A bijection of 32-bit numbers, well mixed. */
export function mix(number: number): number {
  let value = (number + 0x9e37_79b9) | 0;
  value = Math.imul(value ^ (value >>> 16), 0x85eb_ca6b);
  value = Math.imul(value ^ (value >>> 13), 0xc2b2_ae35);
  return (value ^ (value >>> 16)) >>> 0;
}

/** Packs and manifests in the trash: what they are, and the way back. */
import { recordsOf } from '../index/pack-records.ts';
import { readClosedPack, readTrashedPack, type PackListing } from '../pack/pack-reader.ts';
import { layout } from '../storage/layout.ts';
import type { TrashedObject } from '../storage/store.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { listTrash, type TrashedPack } from './trash-list.ts';

type Parts = Pick<MaintenanceParts, 'storage' | 'file' | 'seams' | 'turns' | 'records'>;

export const objectOf = ({ contents, packId, epoch }: TrashedPack): TrashedObject => ({
  epoch,
  name: layout.closedPack(contents, packId),
});

/** Null, and an error in the log, when it cannot be read. */
export const readTrashed = ({ storage, file, seams }: Parts, pack: TrashedPack): Promise<PackListing | null> =>
  readTrashedPack(storage, file.uuid, pack, seams.log);

/** When it fails half-way it lies in the trash again: that is where this process looks for it. */
export async function moveBack({ storage: { store } }: Pick<Parts, 'storage'>, object: TrashedObject): Promise<void> {
  try {
    await store.restoreFromTrash(object);
  } catch (error) {
    await store.moveToTrash(object).catch(() => undefined);
    throw error;
  }
}

/** Whether it is back, its records found. */
export function bringPackBack(parts: Parts, pack: TrashedPack): Promise<boolean> {
  const { storage, file, seams, records, turns } = parts;
  return turns.take('trash', async () => {
    await moveBack(parts, objectOf(pack));
    const listing = await readClosedPack(storage, file.uuid, pack, seams.log);
    if (!listing) return false;
    records.returnPack(pack.packId, recordsOf(listing));
    seams.log.warn('pack brought back from the trash: something needs it', { pack: pack.packId, epoch: pack.epoch });
    return true;
  });
}

/** The packs that have sound records of these ids, the last trashed first. Reads the footers of all packs in the trash. */
export async function* packsWith(
  parts: Parts & Pick<MaintenanceParts, 'damages'>,
  ids: readonly Uint8Array[],
): AsyncGenerator<{ pack: TrashedPack; listing: PackListing }, void> {
  const missing = new Set(ids.map(keyOf));
  for (const pack of (await listTrash(parts)).packs.toReversed()) {
    if (missing.size === 0) return;
    const listing = await readTrashed(parts, pack);
    const found = listing?.records.filter(
      ({ header, offset }) => missing.has(keyOf(header.id)) && !parts.damages.list.has(pack.packId, offset),
    );
    if (!listing || !found || found.length === 0) continue;
    for (const { header } of found) missing.delete(keyOf(header.id));
    yield { pack, listing };
  }
}

/** Brings back the packs that have sound records of these ids. How many; 0 when nothing of them is there. */
export async function bringBackFor(
  parts: Parts & Pick<MaintenanceParts, 'damages'>,
  ids: readonly Uint8Array[],
): Promise<number> {
  let count = 0;
  for await (const { pack } of packsWith(parts, ids)) if (await bringPackBack(parts, pack)) count += 1;
  return count;
}

export const keyOf = (id: Uint8Array): string => Buffer.from(id).toString('latin1');

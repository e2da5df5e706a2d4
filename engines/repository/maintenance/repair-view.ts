/** The repository as it would be after a repair, so that a dry run judges as the real one does. Else: as it is. */
import { createDigestIndex } from '../restore-point/digest-index.ts';
import { recordsOf } from '../index/pack-records.ts';
import { createRecordIndex, type NewRecord, type RecordIndex } from '../index/record-index.ts';
import type { PackListing } from '../pack/pack-reader.ts';
import { openRecordSource } from '../pack/record-source.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import type { TrashedObject } from '../storage/store.ts';
import type { JudgeParts } from './judge-points.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { createPackPresence, type PackPresence } from './pack-presence.ts';
import { objectOf } from './trash.ts';
import type { TrashedPack } from './trash-list.ts';

export type RepairView = {
  parts(): JudgeParts;
  /** Made anew: packs come and go. */
  presence(): PackPresence;
  /** Records that would be found again. */
  addSaved(records: readonly NewRecord[]): void;
  /** As if it were back. False: it is already. */
  addTrashed(pack: TrashedPack, listing: PackListing): boolean;
  close(): Promise<void>;
};

export function createRepairView(parts: MaintenanceParts): RepairView {
  const added = createRecordIndex();
  const back = new Map<string, TrashedObject>();
  const storage = seeingTrash(parts.storage, back);
  const { vault, points, damages } = parts;
  const source = openRecordSource({ storage, vault });
  const records: RecordIndex = {
    ...parts.records,
    lookup: (id) => parts.records.lookup(id) ?? added.lookup(id),
    holds: (id, rawLength) => parts.records.holds(id, rawLength) || added.holds(id, rawLength),
  };
  const unwatched = createDigestIndex(records, vault);
  return {
    parts: () => ({ records, unwatched, source, points, damages }),
    presence: () => createPackPresence({ ...parts, storage }),
    addSaved: (saved) => added.apply(saved),
    addTrashed: (pack, listing) => {
      const name = layout.closedPack(pack.contents, pack.packId);
      if (back.has(name)) return false;
      back.set(name, objectOf(pack));
      added.apply(recordsOf(listing));
      return true;
    },
    close: () => source.close(),
  };
}

/** `back`: objects of the trash that are found under their old names. */
const seeingTrash = ({ staging, store }: Storage, back: ReadonlyMap<string, TrashedObject>): Storage => ({
  staging,
  store: {
    ...store,
    open: async (name) => {
      const trashed = back.get(name);
      return (await store.open(name)) ?? (trashed ? store.openTrashed(trashed) : null);
    },
  },
});

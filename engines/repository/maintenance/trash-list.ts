/** What lies in the trash, by name. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { manifestIdOf, packIdOf } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import type { Store, TrashedObject } from '../storage/store.ts';

export type TrashedPack = PackName & { epoch: number };
export type TrashedManifest = TrashedObject & { restorePointId: RestorePointId };
export type Trash = { packs: TrashedPack[]; manifests: TrashedManifest[] };

const shelves: readonly PackContents[] = ['blocks', 'pages'];

/** By epoch. */
export async function listTrash({ storage }: { storage: Storage }): Promise<Trash> {
  const trash: Trash = { packs: [], manifests: [] };
  for (const { epoch, name } of await storage.store.listTrash()) {
    for (const contents of shelves) {
      const packId = packIdOf(contents, name);
      if (packId !== null) trash.packs.push({ contents, packId, epoch });
    }
    const restorePointId = manifestIdOf(name);
    if (restorePointId !== null) trash.manifests.push({ epoch, name, restorePointId });
  }
  return trash;
}

/** By restore point, as each was trashed last. */
type FoundTrashed = ReadonlyMap<RestorePointId, TrashedManifest>;
export type TrashedManifests = { find(): Promise<FoundTrashed> };

/**
 * The trash is listed once for as long as nothing moves into it or out of it: whoever asks page by page would list all of
 * its packs for each. `storage`: for all who move something.
 */
export function watchTrash(storage: Storage): { storage: Storage; trashed: TrashedManifests } {
  let found: Promise<FoundTrashed> | null = null;
  const forget = (): void => {
    found = null;
  };
  const find = (): Promise<FoundTrashed> => {
    if (found) return found;
    const listing = findTrashed(storage);
    listing.catch(() => {
      if (found === listing) forget();
    });
    return (found = listing);
  };
  return { storage: { ...storage, store: aroundMoves(storage.store, forget) }, trashed: { find } };
}

/** `forget`: before, and after: what was listed meanwhile is of neither. */
function aroundMoves(store: Store, forget: () => void): Store {
  const moving = async (move: () => Promise<void>): Promise<void> => {
    forget();
    await move().finally(forget);
  };
  return {
    ...store,
    moveToTrash: (object) => moving(() => store.moveToTrash(object)),
    restoreFromTrash: (object) => moving(() => store.restoreFromTrash(object)),
    removeFromTrash: (object) => moving(() => store.removeFromTrash(object)),
  };
}

async function findTrashed(storage: Storage): Promise<FoundTrashed> {
  return new Map((await listTrash({ storage })).manifests.map((manifest) => [manifest.restorePointId, manifest]));
}

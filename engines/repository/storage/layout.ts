/** Where everything lies in a repository folder (FORMAT.md, "Layout"). */
import { join } from 'node:path';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { hexDigestOf } from '../../../schema/repository/digest.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';

export type Layout = ReturnType<typeof layoutOf>;

export function layoutOf(folder: string) {
  const open = join(folder, 'open');
  const openPacks = join(open, 'packs');
  const openFolder = (id: RestorePointId): string => join(open, id);
  const shelfOf = (contents: PackContents): string => join(folder, contents === 'pages' ? 'meta' : 'packs');
  const closedFolder = (contents: PackContents, packId: string): string => join(shelfOf(contents), packId.slice(0, 2));
  const closedPack = (contents: PackContents, packId: string): string => join(closedFolder(contents, packId), packId);
  return {
    folder,
    repositoryFile: join(folder, 'repository.json'),
    lock: join(folder, 'lock'),
    lockOwner: join(folder, 'lock.owner'),
    open,
    openPacks,
    aborted: join(folder, 'aborted'),
    manifests: join(folder, 'manifests'),
    shelfOf,
    closedFolder,
    closedPack,
    openPack: (packId: string): string => join(openPacks, packId),
    /** Every place a pack may be in, the likeliest first. */
    packPlaces: (packId: string): string[] => [
      closedPack('blocks', packId),
      join(openPacks, packId),
      closedPack('pages', packId),
    ],
    openFolder,
    head: (id: RestorePointId): string => join(openFolder(id), 'head'),
    ledger: (id: RestorePointId): string => join(openFolder(id), 'ledger'),
    /** Room for a tombstone, should the disk be full by then. */
    reserve: (id: RestorePointId): string => join(openFolder(id), 'reserve'),
    tombstone: (id: RestorePointId): string => join(folder, 'aborted', id),
    manifestFolder: (vmId: string): string => join(folder, 'manifests', vmKeyOf(vmId)),
    manifest: (vmId: string, id: RestorePointId): string => join(folder, 'manifests', vmKeyOf(vmId), id),
  };
}

/** Folder name of a VM: its id where that is a safe name, else a hash. */
export function vmKeyOf(vmId: string): string {
  return /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(vmId) ? vmId : `h-${hexDigestOf(vmId).slice(0, 32)}`;
}

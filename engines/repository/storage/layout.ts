/** What each thing of a repository is called (FORMAT.md, "Layout"): names in its staging area and its store. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import type { VmKey } from '../../../schema/repository/names.ts';
import type { PackContents } from '../../../schema/repository/pack.ts';

const openFolder = (id: RestorePointId): string => `open/${id}`;
const shelfOf = (contents: PackContents): string => (contents === 'pages' ? 'meta' : 'packs');
const manifestFolder = (vm: VmKey): string => `manifests/${vm}`;

export const layout = {
  // Staging.
  repositoryFile: 'repository.json',
  repositoryFileCopy: 'repository.json.copy',
  lock: 'lock',
  /** Of repository.json. */
  fileLock: 'lock.file',
  ownerOf: (lock: string): string => `${lock}.owner`,
  open: 'open',
  openPacks: 'open/packs',
  aborted: 'aborted',
  damaged: 'damaged',
  verified: 'verified',
  marks: 'marks',
  openPack: (packId: string): string => `open/packs/${packId}`,
  openFolder,
  head: (id: RestorePointId): string => `${openFolder(id)}/head`,
  ledger: (id: RestorePointId): string => `${openFolder(id)}/ledger`,
  /** Room for a tombstone, should the disk be full by then. */
  reserve: (id: RestorePointId): string => `${openFolder(id)}/reserve`,
  tombstone: (id: RestorePointId): string => `aborted/${id}`,
  mark: (id: RestorePointId): string => `marks/${id}`,
  state: 'state',
  /** Room for a new state, should the disk be full by then. */
  reserveOfState: 'state.reserve',
  flagsFolder: 'flags',
  flags: (id: RestorePointId): string => `flags/${id}`,
  // Store.
  manifests: 'manifests',
  trash: 'trash',
  shelfOf,
  closedPack: (contents: PackContents, packId: string): string =>
    `${shelfOf(contents)}/${packId.slice(0, 2)}/${packId}`,
  manifestFolder,
  manifest: (vm: VmKey, id: RestorePointId): string => `${manifestFolder(vm)}/${id}`,
};

// Whatever else somebody puts into a repository's folders is not ours: it is neither read nor removed.

/** The pack that a listing names; null for what is no closed pack. */
export function packIdOf(contents: PackContents, name: string): string | null {
  const packId = name.slice(name.lastIndexOf('/') + 1);
  return isId128(packId) && name === layout.closedPack(contents, packId) ? packId : null;
}

/** The restore point whose manifest a listing names; null for what is no manifest. */
export function manifestIdOf(name: string): RestorePointId | null {
  const [folder, , id, more] = name.split('/');
  return folder === layout.manifests && id !== undefined && isId128(id) && more === undefined
    ? (id as RestorePointId)
    : null;
}

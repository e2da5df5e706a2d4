/** Manifests, heads, tombstones, flags and state: where each lies, and under which name it is sealed (FORMAT.md). */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import { MAX_SEALED_DOCUMENT_BYTES } from '../../../schema/repository/limits.ts';
import type { DocumentName, TextVault } from '../../../schema/repository/sealed-text.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import { isReadFailure } from './files.ts';
import { layout } from './layout.ts';
import type { Storage } from './storage.ts';

/** Where documents lie, and what seals and opens them. */
export type SealedStorage = { storage: Storage; vault: Vault };

/** `file`: its name in staging area or store. */
export type DocumentFile = DocumentName & { file: string };
type Shelf = { readText(name: string, maxBytes: number): Promise<string | null>; locate(name: string): string };

/** One that a listing of the store named. */
export const listedManifest = (file: string): DocumentFile => ({
  file,
  role: 'manifest',
  name: file.slice(layout.manifests.length + 1),
});

export const manifestFile = ({ nameOf }: Pick<Vault, 'nameOf'>, vmId: string, id: RestorePointId): DocumentFile =>
  listedManifest(layout.manifest(nameOf(vmId), id));

export const headFile = (id: RestorePointId): DocumentFile => ({ file: layout.head(id), role: 'head', name: id });

/** `id`: as listed, so perhaps of something else. */
export const tombstoneFile = (id: string): DocumentFile => ({
  file: layout.tombstone(id as RestorePointId),
  role: 'tombstone',
  name: id,
});

/** `id`: as listed. */
export const markFile = (id: string): DocumentFile => ({
  file: layout.mark(id as RestorePointId),
  role: 'mark',
  name: id,
});
export const flagsFile = (id: RestorePointId): DocumentFile => ({ file: layout.flags(id), role: 'flags', name: id });
export const stateFile: DocumentFile = { file: layout.state, role: 'state', name: 'state' };

/** Its checked JSON; null when there is none. REPOSITORY_CORRUPT, TAMPERED. */
export async function readDocument(shelf: Shelf, vault: TextVault, of: DocumentFile): Promise<string | null> {
  const source = await shelf.readText(of.file, MAX_SEALED_DOCUMENT_BYTES);
  return source === null ? null : vault.openText(of, source, shelf.locate(of.file));
}

/** Of an error of `readDocument`: it will not be otherwise the next time. */
export function isDamage(error: unknown): boolean {
  const code = errorCodeOf(error);
  return code === 'REPOSITORY_CORRUPT' || code === 'TAMPERED' || isReadFailure(error);
}

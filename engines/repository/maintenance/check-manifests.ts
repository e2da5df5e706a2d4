/** Manifests as they lie in the store: each parses, is what its name says, and what this process knows. */
import { errorCodeOf, errorTable, messageOf } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import { readManifest } from '../restore-point/points.ts';
import { manifestFile } from '../storage/documents.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout, manifestIdOf } from '../storage/layout.ts';
import type { Parts } from '../restore-point/parts.ts';

/** `name`: of the file, in the store. */
export type BadManifest = { restorePointId: RestorePointId; name: string; why: Reason };

type Shelf = Pick<Parts, 'storage' | 'vault' | 'points'>;

/** `inScope`: by restore point and folder of the VM. */
export async function checkManifests(
  shelf: Shelf,
  inScope: (id: RestorePointId, vmFolder: string) => boolean,
  signal: AbortSignal,
): Promise<BadManifest[]> {
  const { storage, vault, points } = shelf;
  const bad: BadManifest[] = [];
  const listed = new Set((await storage.store.list(layout.manifests)).filter((name) => manifestIdOf(name) !== null));
  for (const { restorePointId, manifest } of points.sealed.values())
    listed.add(manifestFile(vault, manifest.vm.vmId, restorePointId).file);
  for (const name of listed) {
    signal.throwIfAborted();
    const [, vmFolder = '', id = ''] = name.split('/');
    const restorePointId = id as RestorePointId;
    const why = inScope(restorePointId, vmFolder) ? await faultOf(shelf, name, restorePointId) : null;
    if (why) bad.push({ restorePointId, name, why });
  }
  return bad;
}

async function faultOf(shelf: Shelf, name: string, id: RestorePointId): Promise<Reason | null> {
  const { vault, points } = shelf;
  try {
    const found = await readManifest(shelf, name);
    // One that was removed meanwhile is not missing.
    if (!found) return points.sealed.has(id) ? { code: 'REPOSITORY_CORRUPT', message: 'it is missing' } : null;
    const { manifest, manifestDigest } = found;
    const isNamed = manifestFile(vault, manifest.vm.vmId, manifest.restorePointId).file === name;
    const known = points.sealed.get(id);
    if (isNamed && (!known || known.manifestDigest === manifestDigest)) return null;
    return {
      code: 'REPOSITORY_CORRUPT',
      message: isNamed ? 'it is not the one that was sealed' : 'it is of another name',
    };
  } catch (error) {
    const code = errorCodeOf(error);
    if (isReadFailure(error)) return { code: 'REPOSITORY_CORRUPT', message: 'the medium does not give it' };
    if (code && errorTable[code].disposition === 'damage') return { code, message: messageOf(error) };
    throw error;
  }
}

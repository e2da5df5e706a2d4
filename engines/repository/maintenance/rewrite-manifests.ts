/** Manifests that are damaged or gone on disk while this process still has them as they were sealed. */
import { encodeManifest } from '../../../schema/repository/documents.ts';
import { manifestFile } from '../storage/documents.ts';
import type { BadManifest } from './check-manifests.ts';
import type { CheckParts } from './check-parts.ts';
import { isLocked } from './flags.ts';

/** Whether the very same text can be written again, and nothing locks what is there. */
export function isKnown({ points, flags, time, vault }: CheckParts, { restorePointId, name }: BadManifest): boolean {
  const sealed = points.sealed.get(restorePointId);
  if (!sealed || isLocked(flags.of(restorePointId), time.lastMs())) return false;
  const { manifest, manifestDigest } = sealed;
  if (manifestFile(vault, manifest.vm.vmId, restorePointId).file !== name) return false;
  return encodeManifest(manifest).digest === manifestDigest;
}

/** What was there goes to the trash. A crash in between takes nothing that could be read. */
export async function rewriteManifests(
  { points, storage, vault, state, seams }: CheckParts,
  known: readonly BadManifest[],
): Promise<void> {
  const { store } = storage;
  for (const { restorePointId } of known) {
    const { manifest } = points.sealed.get(restorePointId)!;
    const of = manifestFile(vault, manifest.vm.vmId, restorePointId);
    await store.moveToTrash({ epoch: state.epoch(), name: of.file });
    await store.putIfAbsent(of.file, vault.sealText(of, encodeManifest(manifest).text));
    seams.log.warn('manifest written again', { restorePointId, path: store.locate(of.file) });
  }
}

/** Sealed or aborted: exactly one of two files, whichever was linked first, also when a process died over it. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import {
  encodeManifest,
  encodeTombstone,
  parseManifest,
  parseTombstone,
  type Head,
  type Tombstone,
} from '../../../schema/repository/documents.ts';
import { manifestFile, readDocument, tombstoneFile, type SealedStorage } from '../storage/documents.ts';
import { errnoOf } from '../storage/files.ts';
import { layout } from '../storage/layout.ts';
import type { OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { outcomeOf, type RunState } from './points.ts';

export type Decision = Exclude<RunState, { state: 'open' }>;

/** What lies on disk for an open restore point: left by a try of which the last sync failed. Durable when it returns. */
export async function findDecision(parts: Parts, head: Head): Promise<Decision | null> {
  const { storage, vault } = parts;
  const { staging, store } = storage;
  const ofManifest = manifestFile(vault, head.spec.vm.vmId, head.restorePointId);
  const sealed = await readDocument(store, vault, ofManifest);
  if (sealed !== null) {
    await store.confirm(ofManifest.file);
    const { manifest, digest } = parseManifest(sealed, store.locate(ofManifest.file));
    return { state: 'sealed', sealed: outcomeOf(manifest, digest) };
  }
  const ofTombstone = tombstoneFile(head.restorePointId);
  const aborted = await readDocument(staging, vault, ofTombstone);
  if (aborted === null) return null;
  await staging.confirm(ofTombstone.file);
  return { state: 'aborted', tombstone: parseTombstone(aborted, staging.locate(ofTombstone.file)) };
}

/** The commit point. Nothing but what is on disk before counts afterwards. */
export async function writeManifest({ storage, vault }: SealedStorage, manifest: Manifest): Promise<Decision> {
  const { text, digest } = encodeManifest(manifest);
  const of = manifestFile(vault, manifest.vm.vmId, manifest.restorePointId);
  await storage.store.putIfAbsent(of.file, vault.sealText(of, text));
  return { state: 'sealed', sealed: outcomeOf(manifest, digest) };
}

export async function writeTombstone({ storage, vault }: SealedStorage, tombstone: Tombstone): Promise<Decision> {
  const of = tombstoneFile(tombstone.restorePointId);
  await storage.staging.putIfAbsent(of.file, vault.sealText(of, encodeTombstone(tombstone)));
  return { state: 'aborted', tombstone };
}

/** Takes the durable decision into memory and removes what led to it. */
export async function settle(parts: Parts, id: RestorePointId, decision: Decision): Promise<void> {
  const { points, storage, seams } = parts;
  if (decision.state === 'sealed') points.sealed.set(id, decision.sealed);
  else points.aborted.set(id, decision.tombstone);
  const point = points.open.get(id);
  points.open.delete(id);
  if (!point) return;
  try {
    await point.ledger.close();
    await storage.staging.remove(layout.openFolder(id));
  } catch (error) {
    seams.log.warn('what an ended restore point left is removed at the next start', {
      restorePointId: id,
      errno: errnoOf(error),
      error: String(error),
    });
  }
}

/** While `work` decides, windows are refused; when it fails the restore point goes on. */
export async function whileClosing<T>(point: OpenPoint, work: () => Promise<T>): Promise<T> {
  point.closing = true;
  try {
    await point.ledger.idle();
    return await work();
  } catch (error) {
    point.closing = false;
    throw error;
  }
}

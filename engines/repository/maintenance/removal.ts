/** Removing restore points, and taking that back: a manifest goes to the trash; what it needs dies at the next collection. */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { RemovalOutcome } from '../../../schema/domain/maintenance.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import { readPage, type DiskMap } from '../restore-point/page-reader.ts';
import { newestSealed, requireSealed } from '../restore-point/points.ts';
import { isLocked } from './flags.ts';
import { manifestNameOf, type Protect } from './locks.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { bringBackFor, keyOf, moveBack } from './trash.ts';
import type { TrashedManifest } from './trash-list.ts';
import { readTrashedManifest, trashedUntil } from './trashed-manifests.ts';
import { newSeenPages, walkMap } from './walk-map.ts';

/** `last`: also the newest good one of its lineage: the VM is not needed any more. */
export type RemovalOptions = { last?: boolean };

/**
 * RESTORE_POINT_NOT_FOUND; RESTORE_POINT_HELD for one that is kept, held, locked or being restored; LAST_RESTORE_POINT. In
 * the trash already: the same outcome. In the turn of the trash.
 */
export async function removeRestorePoint(
  parts: MaintenanceParts,
  id: RestorePointId,
  { last = false }: RemovalOptions,
  protect: Protect,
): Promise<RemovalOutcome> {
  const { points, state } = parts;
  const time = await parts.time.read();
  const outcomeIn = (epoch: number): RemovalOutcome => ({
    restorePointId: id,
    removed: true,
    trashedUntil: trashedUntil(parts, epoch, time),
    asOf: new Date(parts.seams.clock.now()).toISOString(),
  });
  if (!points.sealed.has(id)) {
    const trashed = await confirmTrashed(parts, id);
    if (trashed) return outcomeIn(trashed.epoch);
  }
  // Nothing is awaited from the last question to the moment from which nobody finds it.
  const sealed = requireSealed(points, id);
  checkRemovable(parts, sealed.manifest, time.nowMs, last);
  points.sealed.delete(id);
  const name = manifestNameOf(parts, sealed);
  const epoch = state.epoch();
  try {
    if (parts.flags.hasLocks()) await protect([name], false);
    await parts.storage.store.moveToTrash({ epoch, name });
  } catch (error) {
    if (await isThere(parts, name)) points.sealed.set(id, sealed);
    throw error;
  }
  parts.seams.log.info('restore point removed', { restorePointId: id, epoch });
  return outcomeIn(epoch);
}

async function isThere({ storage }: MaintenanceParts, name: string): Promise<boolean> {
  // Not known: rather one too many than one too few.
  const file = await storage.store.open(name).catch(() => undefined);
  await file?.close().catch(() => undefined);
  return file !== null;
}

function checkRemovable(parts: MaintenanceParts, manifest: Manifest, nowMs: number | null, last: boolean): void {
  const { restorePointId: id } = manifest;
  const why = whyHeld(parts, id, nowMs);
  if (why !== null)
    throw new TidemarkError('RESTORE_POINT_HELD', `restore point ${id} is not removed: ${why}`, { restorePointId: id });
  if (!last && isLastGood(parts, manifest))
    throw new TidemarkError('LAST_RESTORE_POINT', `restore point ${id} is the newest good one of its lineage`, {
      restorePointId: id,
      lineage: manifest.lineage,
    });
}

function whyHeld({ flags, reliance }: MaintenanceParts, id: RestorePointId, nowMs: number | null): string | null {
  const known = flags.of(id);
  if (known === 'unreadable') return 'its flags cannot be read';
  if (known.hold !== null) return `held: ${known.hold}`;
  if (known.keep) return 'it is marked to be kept';
  if (isLocked(known, nowMs)) return 'it is locked';
  return reliance.isBeingRestored(id) ? 'it is being restored' : null;
}

/** Where none is good, the newest counts as such: it may be what is left of a VM. */
function isLastGood({ points, stateOf }: MaintenanceParts, { restorePointId, lineage }: Manifest): boolean {
  const newest =
    newestSealed(points, (one) => one.lineage === lineage && stateOf(one.restorePointId) === 'good') ??
    newestSealed(points, (one) => one.lineage === lineage);
  return newest?.restorePointId === restorePointId;
}

/** Where it is in the trash; then durably: whoever moved it there may have died, or failed, before that was. */
async function confirmTrashed(parts: MaintenanceParts, id: RestorePointId): Promise<TrashedManifest | undefined> {
  const trashed = (await parts.trashed.find()).get(id);
  if (trashed && !(await isThere(parts, trashed.name))) await parts.storage.store.moveToTrash(trashed);
  return trashed;
}

/**
 * Not while a collection runs. RESTORE_POINT_NOT_FOUND when it is not in the trash, or when something that it needs was
 * removed for good. What it needs and is known to be damaged it comes back without, and marked. Sealed: the same outcome.
 */
export async function restoreFromTrash(parts: MaintenanceParts, id: RestorePointId): Promise<SealOutcome> {
  const known = parts.points.sealed.get(id);
  if (known) {
    // Whoever brought it back may have died before that was durable.
    await parts.storage.store.confirm(manifestNameOf(parts, known));
    return known;
  }
  const trashed = (await parts.trashed.find()).get(id);
  if (!trashed)
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `no restore point ${id} in the trash`, { restorePointId: id });
  const sealed = await readTrashedManifest(parts, trashed);
  const damaged = new Set<string>();
  for (const disk of sealed.manifest.disks) await bringBackMap(parts, id, disk, damaged);
  if (damaged.size > 0) await markDamaged(parts, id, damaged.size);
  await parts.turns.take('trash', async () => {
    await moveBack(parts, trashed);
    parts.points.sealed.set(id, sealed);
  });
  parts.seams.log.info('restore point brought back', { restorePointId: id });
  return sealed;
}

function markDamaged({ marks, seams }: MaintenanceParts, id: RestorePointId, count: number): Promise<void> {
  const why = { code: 'DAMAGED_BLOCK', message: `of what it needs, ${count} records are damaged` };
  return marks.set(id, 'damaged', why, new Date(seams.clock.now()).toISOString());
}

/** `damaged`: what is known to be; ids (hex), added to. */
async function bringBackMap(
  parts: MaintenanceParts,
  id: RestorePointId,
  map: DiskMap,
  damaged: Set<string>,
): Promise<void> {
  const { records, vault, damages } = parts;
  const missing = new Map<string, Uint8Array>();
  const fetch = async (): Promise<void> => {
    const ids = [...missing.values()];
    missing.clear();
    if (ids.length > 0) await bringBackFor(parts, ids);
    const lost = ids.filter((one) => records.lookup(one) === null);
    if (lost.length === 0) return;
    const known = new Set([...damages.list.lines()].map((line) => line.id));
    for (const one of lost) {
      const hex = Buffer.from(one).toString('hex');
      if (known.has(hex)) damaged.add(hex);
      else {
        const message = `restore point ${id} cannot be brought back: something that it needs was removed for good`;
        throw new TidemarkError('RESTORE_POINT_NOT_FOUND', message, { restorePointId: id, id: hex });
      }
    }
  };
  await walkMap(map, {
    seen: newSeenPages(),
    read: (digest) => readPage({ ...parts, index: parts.unwatched }, digest),
    meet: (digest) => {
      const one = vault.idOf(digest);
      if (records.lookup(one) === null) missing.set(keyOf(one), Uint8Array.from(one));
    },
    // The pages that are read next are among those met.
    pause: fetch,
  });
  await fetch();
}

/** All restore points of a repository: open, sealed, aborted; read from the folder when it is opened. */
import { TidemarkError, errorCodeOf } from '../../../schema/domain/errors.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { Clock, Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { parseManifest, parseTombstone, type Tombstone } from '../../../schema/repository/documents.ts';
import { MAX_HEAD_BYTES, MAX_MANIFEST_BYTES } from '../../../schema/repository/limits.ts';
import { listFolder, readTextFile, removeTree } from '../storage/files.ts';
import type { Layout } from '../storage/layout.ts';
import { loadOpenPoint, type OpenPoint } from './open-point.ts';

export type Points = {
  open: Map<RestorePointId, OpenPoint>;
  sealed: Map<RestorePointId, SealOutcome>;
  aborted: Map<RestorePointId, Tombstone>;
  /** Documents that could not be read: they are logged, left as they are, and counted. */
  damaged: string[];
};

type Loading = { layout: Layout; clock: Clock; log: Log };

export async function loadPoints(loading: Loading): Promise<Points> {
  const points: Points = { open: new Map(), sealed: new Map(), aborted: new Map(), damaged: [] };
  await loadSealed(loading, points);
  await loadAborted(loading, points);
  await loadOpen(loading, points);
  return points;
}

async function orDamaged<T>(loading: Loading, points: Points, path: string, read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    if (errorCodeOf(error) !== 'REPOSITORY_CORRUPT') throw error;
    loading.log.error('damaged document left as it is', { path, error: String(error) });
    points.damaged.push(path);
    return null;
  }
}

async function loadSealed(loading: Loading, points: Points): Promise<void> {
  const { manifests } = loading.layout;
  for (const vm of await listFolder(manifests)) {
    for (const file of await listFolder(`${manifests}/${vm.name}`)) {
      const path = `${manifests}/${vm.name}/${file.name}`;
      const text = await orDamaged(loading, points, path, () => readTextFile(path, MAX_MANIFEST_BYTES));
      const found =
        text === null ? null : await orDamaged(loading, points, path, async () => parseManifest(text, path));
      if (found) points.sealed.set(found.manifest.restorePointId, outcomeOf(found.manifest, found.digest));
    }
  }
}

export const outcomeOf = (manifest: Manifest, manifestDigest: string): SealOutcome => ({
  restorePointId: manifest.restorePointId,
  manifestDigest,
  manifest,
});

async function loadAborted(loading: Loading, points: Points): Promise<void> {
  const { aborted } = loading.layout;
  for (const file of await listFolder(aborted)) {
    const path = `${aborted}/${file.name}`;
    const text = await orDamaged(loading, points, path, () => readTextFile(path, MAX_HEAD_BYTES));
    const found = text === null ? null : await orDamaged(loading, points, path, async () => parseTombstone(text, path));
    if (found) points.aborted.set(found.restorePointId, found);
  }
}

/** What lies beside a manifest or a tombstone lost its race with the crash: it is removed. */
async function loadOpen(loading: Loading, points: Points): Promise<void> {
  const { layout, clock } = loading;
  for (const entry of await listFolder(layout.open)) {
    if (!isId128(entry.name)) continue;
    const id = entry.name as RestorePointId;
    const decided = points.sealed.has(id) || points.aborted.has(id);
    const path = layout.openFolder(id);
    const point = decided ? null : await orDamaged(loading, points, path, () => loadOpenPoint(layout, id, clock.now()));
    if (point) points.open.set(id, point);
    else if (!points.damaged.includes(path)) await removeTree(path);
  }
}

/** The open restore point; RESTORE_POINT_SEALED, _ABORTED or _NOT_FOUND when there is none. */
export function requireOpen(points: Points, id: RestorePointId, run: RunKey): OpenPoint {
  const point = points.open.get(id);
  if (point && point.head.spec.run === run) return point;
  if (points.sealed.get(id)?.manifest.run === run)
    throw new TidemarkError('RESTORE_POINT_SEALED', `restore point ${id} is sealed`, { restorePointId: id });
  if (points.aborted.get(id)?.run === run)
    throw new TidemarkError('RESTORE_POINT_ABORTED', `restore point ${id} was aborted`, { restorePointId: id });
  throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `no restore point ${id} of run ${run}`, {
    restorePointId: id,
    run,
  });
}

export const requireSealed = (points: Points, id: RestorePointId): SealOutcome => {
  const sealed = points.sealed.get(id);
  if (sealed) return sealed;
  throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `no sealed restore point ${id}`, { restorePointId: id });
};

/** Newest of the sealed restore points that `fits`, or null. */
export function newestSealed(points: Points, fits: (manifest: Manifest) => boolean): Manifest | null {
  let newest: Manifest | null = null;
  for (const { manifest } of points.sealed.values()) {
    if (fits(manifest) && (newest === null || manifest.sealedAt > newest.sealedAt)) newest = manifest;
  }
  return newest;
}

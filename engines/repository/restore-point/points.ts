/** All restore points of a repository: open, sealed, aborted; read from the folder when it is opened. */
import { TidemarkError, errorCodeOf } from '../../../schema/domain/errors.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { Clock, Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { parseManifest, parseTombstone, type Tombstone } from '../../../schema/repository/documents.ts';
import { MAX_DOCUMENT_BYTES } from '../../../schema/repository/limits.ts';
import type { RecordIndex } from '../index/record-index.ts';
import { isReadFailure, listFolder, readTextFile, removeTree, syncFolder } from '../storage/files.ts';
import type { Layout } from '../storage/layout.ts';
import { loadOpenPoint, type OpenPoint } from './open-point.ts';

export type Points = {
  open: Map<RestorePointId, OpenPoint>;
  sealed: Map<RestorePointId, SealOutcome>;
  aborted: Map<RestorePointId, Tombstone>;
  /** Documents that could not be read: they are logged, left as they are, and counted. */
  damaged: string[];
};

type Loading = { layout: Layout; clock: Clock; log: Log; index: RecordIndex };

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
    // One sector that cannot be read must not keep the whole repository closed.
    if (errorCodeOf(error) !== 'REPOSITORY_CORRUPT' && !isReadFailure(error)) throw error;
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
      const text = await orDamaged(loading, points, path, () => readTextFile(path, MAX_DOCUMENT_BYTES));
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
    const text = await orDamaged(loading, points, path, () => readTextFile(path, MAX_DOCUMENT_BYTES));
    const found = text === null ? null : await orDamaged(loading, points, path, async () => parseTombstone(text, path));
    if (found) points.aborted.set(found.restorePointId, found);
  }
}

/** What lies beside a manifest or a tombstone lost its race with the crash: it is removed. */
async function loadOpen(loading: Loading, points: Points): Promise<void> {
  const { layout } = loading;
  for (const entry of await listFolder(layout.open)) {
    if (!isId128(entry.name)) continue;
    const id = entry.name as RestorePointId;
    const path = layout.openFolder(id);
    const decidedIn = folderOfDecision(layout, points, id);
    const point = decidedIn === null ? await orDamaged(loading, points, path, () => loadOne(loading, id)) : null;
    if (point) points.open.set(id, point);
    if (point || points.damaged.includes(path)) continue;
    // The decision was read from memory, perhaps: it is made durable before what led to it goes.
    if (decidedIn !== null) await syncFolder(decidedIn);
    await removeTree(path);
  }
}

function folderOfDecision(layout: Layout, points: Points, id: RestorePointId): string | null {
  const sealed = points.sealed.get(id);
  if (sealed) return layout.manifestFolder(sealed.manifest.vm.vmId);
  return points.aborted.has(id) ? layout.aborted : null;
}

const loadOne = ({ layout, clock, index }: Loading, id: RestorePointId): Promise<OpenPoint | null> =>
  loadOpenPoint(layout, id, clock.now(), (record) =>
    record.entries.every((entry) => entry.kind !== 'data' || index.lookup(entry.digest) !== null),
  );

export type RunState =
  | { state: 'open'; point: OpenPoint }
  | { state: 'sealed'; sealed: SealOutcome }
  | { state: 'aborted'; tombstone: Tombstone };

/** What has become of a run so far; null when nothing of it is known. */
export function stateOfRun(points: Points, run: RunKey): RunState | null {
  const sealed = findValue(points.sealed, ({ manifest }) => manifest.run === run);
  if (sealed) return { state: 'sealed', sealed };
  const tombstone = findValue(points.aborted, (one) => one.run === run);
  if (tombstone) return { state: 'aborted', tombstone };
  const point = findValue(points.open, ({ head }) => head.spec.run === run);
  return point ? { state: 'open', point } : null;
}

function findValue<T>(map: ReadonlyMap<RestorePointId, T>, fits: (value: T) => boolean): T | null {
  for (const value of map.values()) if (fits(value)) return value;
  return null;
}

const isSealed = (id: RestorePointId): TidemarkError =>
  new TidemarkError('RESTORE_POINT_SEALED', `restore point ${id} is sealed`, { restorePointId: id });

const isAborted = (id: RestorePointId): TidemarkError =>
  new TidemarkError('RESTORE_POINT_ABORTED', `restore point ${id} was aborted`, { restorePointId: id });

/** Why a run is not open any more. */
export const notOpen = (state: Exclude<RunState, { state: 'open' }>): TidemarkError =>
  state.state === 'sealed' ? isSealed(state.sealed.restorePointId) : isAborted(state.tombstone.restorePointId);

/** The open restore point; RESTORE_POINT_SEALED, _ABORTED or _NOT_FOUND when there is none. */
export function requireOpen(points: Points, id: RestorePointId, run: RunKey): OpenPoint {
  const point = points.open.get(id);
  if (point && point.head.spec.run === run) return point;
  if (points.sealed.get(id)?.manifest.run === run) throw isSealed(id);
  if (points.aborted.get(id)?.run === run) throw isAborted(id);
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

/** All restore points of a repository: open, sealed, aborted; read from the folder when it is opened. */
import { TidemarkError, errorCodeOf } from '../../../schema/domain/errors.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { Manifest, SealOutcome } from '../../../schema/domain/restore-point.ts';
import type { Clock, Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { parseManifest, parseTombstone, type Tombstone } from '../../../schema/repository/documents.ts';
import {
  isDamage,
  listedManifest,
  manifestFile,
  readDocument,
  tombstoneFile,
  type SealedStorage,
} from '../storage/documents.ts';
import { layout, manifestIdOf } from '../storage/layout.ts';
import type { DigestIndex } from './digest-index.ts';
import { loadOpenPoint, type OpenPoint } from './open-point.ts';

export type Points = {
  open: Map<RestorePointId, OpenPoint>;
  sealed: Map<RestorePointId, SealOutcome>;
  aborted: Map<RestorePointId, Tombstone>;
  /** Documents that could not be read: they are logged, left as they are, and counted. */
  damaged: string[];
};

type Loading = SealedStorage & { clock: Clock; log: Log; index: DigestIndex };

export async function loadPoints(loading: Loading): Promise<Points> {
  const points: Points = { open: new Map(), sealed: new Map(), aborted: new Map(), damaged: [] };
  await loadSealed(loading, points);
  await loadAborted(loading, points);
  await loadOpen(loading, points);
  return points;
}

/** `path`: of the document, for people. */
async function orDamaged<T>(loading: Loading, points: Points, path: string, read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    // One sector that cannot be read must not keep the whole repository closed.
    if (!isDamage(error)) throw error;
    loading.log.error('damaged document left as it is', { path, code: errorCodeOf(error), error: String(error) });
    points.damaged.push(path);
    return null;
  }
}

async function loadSealed(loading: Loading, points: Points): Promise<void> {
  const { store } = loading.storage;
  for (const name of await store.list(layout.manifests)) {
    if (manifestIdOf(name) === null) continue;
    const found = await orDamaged(loading, points, store.locate(name), () => readManifest(loading, name));
    if (found) points.sealed.set(found.restorePointId, found);
  }
}

/** `name`: of the file, in the store. Null: it is not there. Errors that are damage, and those of the storage. */
export async function readManifest({ storage, vault }: SealedStorage, name: string): Promise<SealOutcome | null> {
  const text = await readDocument(storage.store, vault, listedManifest(name));
  if (text === null) return null;
  const { manifest, digest } = parseManifest(text, storage.store.locate(name));
  return outcomeOf(manifest, digest);
}

export const outcomeOf = (manifest: Manifest, manifestDigest: string): SealOutcome => ({
  restorePointId: manifest.restorePointId,
  manifestDigest,
  manifest,
});

async function loadAborted(loading: Loading, points: Points): Promise<void> {
  const { vault, storage } = loading;
  const { staging } = storage;
  for (const id of (await staging.list(layout.aborted)).filter(isId128)) {
    const of = tombstoneFile(id);
    const path = staging.locate(of.file);
    const found = await orDamaged(loading, points, path, async () => {
      const text = await readDocument(staging, vault, of);
      return text === null ? null : parseTombstone(text, path);
    });
    if (found) points.aborted.set(found.restorePointId, found);
  }
}

/** What lies beside a manifest or a tombstone lost its race with the crash: it is removed. */
async function loadOpen(loading: Loading, points: Points): Promise<void> {
  const { staging } = loading.storage;
  for (const id of await staging.list(layout.open)) {
    if (!isId128(id)) continue;
    await loadOneOpen(loading, points, id as RestorePointId);
  }
}

async function loadOneOpen(loading: Loading, points: Points, id: RestorePointId): Promise<void> {
  const { staging } = loading.storage;
  const folder = layout.openFolder(id);
  if (!(await confirmDecision(loading, points, id))) {
    const path = staging.locate(folder);
    const point = await orDamaged(loading, points, path, () => readOpen(loading, id));
    if (point) points.open.set(id, point);
    if (point || points.damaged.includes(path)) return;
  }
  await staging.remove(folder);
}

/** Whether there is one. It was read from memory, perhaps: it is made durable before what led to it goes. */
async function confirmDecision({ storage, vault }: Loading, points: Points, id: RestorePointId): Promise<boolean> {
  const sealed = points.sealed.get(id);
  if (sealed) await storage.store.confirm(manifestFile(vault, sealed.manifest.vm.vmId, id).file);
  else if (points.aborted.has(id)) await storage.staging.confirm(layout.tombstone(id));
  else return false;
  return true;
}

const readOpen = (loading: Loading, id: RestorePointId): Promise<OpenPoint | null> =>
  loadOpenPoint(loading, id, loading.clock.now(), (record) =>
    record.entries.every((entry) => entry.kind !== 'data' || loading.index.lookup(entry.digest) !== null),
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

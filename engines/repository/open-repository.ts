/** Opens a repository: lock, packs a dead process left, index, restore points; then it serves. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { SealedRestorePoint } from '../../schema/domain/maintenance-sessions.ts';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import type { RestoreSource, Seams } from '../../schema/domain/seams.ts';
import type { RepositoryFile } from '../../schema/repository/documents.ts';
import type { VaultKeys } from '../../schema/repository/keys.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { loadIndex } from './index/load-index.ts';
import { openDamageList, type DamageList } from './pack/damage-list.ts';
import { recoverOpenPacks } from './pack/pack-reader.ts';
import { openPageSink } from './pack/record-sink.ts';
import { openRecordSource } from './pack/record-source.ts';
import { describeFlags, loadFlags } from './maintenance/flags.ts';
import { createSealingHooks } from './maintenance/locks.ts';
import type { CheckParts } from './maintenance/check-parts.ts';
import { createChecking } from './maintenance/checking.ts';
import { bringBack, createMaintenance, withTrash } from './maintenance/maintenance.ts';
import { loadMarks } from './maintenance/marks.ts';
import { describeTrashed, surveyPoints, trashedOfLineage } from './maintenance/survey.ts';
import { watchTrash } from './maintenance/trash-list.ts';
import { createTrashedPlaces } from './maintenance/trashed-places.ts';
import { openVerifiedPacks } from './maintenance/verified-packs.ts';
import { loadState } from './maintenance/repository-state.ts';
import { createRepositoryTime, DAY_MS } from './maintenance/repository-time.ts';
import { followKeys } from './follow-keys.ts';
import type { Repository, RepositoryOptions } from './repository.ts';
import { abortRestorePoint } from './restore-point/abort.ts';
import { assignTransfer } from './restore-point/assign-transfer.ts';
import { createDamages } from './restore-point/damages.ts';
import { createDigestIndex } from './restore-point/digest-index.ts';
import { declareDisks, openRestorePoint } from './restore-point/opening.ts';
import { createPageReader } from './restore-point/page-reader.ts';
import { createPageStore } from './restore-point/page-store.ts';
import { loadPoints, requireOpen, requireSealed } from './restore-point/points.ts';
import { createReliance } from './restore-point/reliance.ts';
import { createRegistrar } from './restore-point/registrar.ts';
import { createRestoreSource } from './restore-point/restore-source.ts';
import { sealRestorePoint } from './restore-point/seal.ts';
import { openMemory } from './index/remembered-repository.ts';
import { checkStillThere, claimRepository, type ClaimedRepository } from './storage/claim-repository.ts';
import { createTurns } from './storage/turns.ts';

/** A person waits. */
const UNDELETE_WAIT_MS = 20_000;

/**
 * REPOSITORY_NOT_ONE, REPOSITORY_IN_USE, REPOSITORY_NEWER, REPOSITORY_CORRUPT (repository.json); KEY_MISSING, WRONG_KEY,
 * NOT_ENCRYPTED, TAMPERED; STORAGE_ERROR. What a process before this one was killed over is taken up: packs, index, open restore points with their windows and fences.
 */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const memory = openMemory(options.indexFolder);
  const claimed = await claimRepository(options.storage.staging, options, await memory.recall());
  try {
    await memory.keep(claimed.file.uuid, options.seams.log);
    return await serve(options, claimed);
  } catch (error) {
    claimed.release();
    throw error;
  }
}

async function serve(options: RepositoryOptions, { file, keys, release }: ClaimedRepository): Promise<Repository> {
  const { storage, indexFolder, indexDeltaEntries: deltaEntries, seams } = options;
  const laneKeys = keys?.vault ?? null;
  const vault = openVault(laneKeys, seams.random);
  const left = await recoverOpenPacks(storage, file.uuid, seams.log);
  const damaged = await openDamageList({ staging: storage.staging, log: seams.log });
  const records = await loadIndex({ storage, file, indexFolder, deltaEntries, seams }, left, placesOf(damaged));
  const points = await loadPoints({
    storage,
    vault,
    clock: seams.clock,
    log: seams.log,
    index: createDigestIndex(records, vault),
  });
  const { idlePackMs: idleMs } = options;
  const idle = idleMs === undefined ? undefined : { clock: seams.clock, idleMs };
  const source = openRecordSource({ storage, vault, idle });
  const parts = await assemble(options, file, { vault, points, source, records, damaged, laneKeys });
  const { tellLanes = async () => undefined } = options;
  const takeUpKeys = async (): Promise<void> => {
    const { turns } = parts;
    const { clock, log } = seams;
    if (keys) await followKeys({ staging: storage.staging, keys, vault, tellLanes, turns, clock, log });
  };
  return facade(parts, { laneKeys, takeUpKeys }, async () => {
    await parts.turns.idle();
    await parts.verified.close();
    for (const point of points.open.values()) await point.ledger.close();
    await parts.pageStore.close();
    await source.close();
    await closeList(damaged, seams);
    await records.close();
    release();
  });
}

function* placesOf(damaged: DamageList): Iterable<{ pack: string; offset: number }> {
  for (const { pack, offset } of damaged.lines()) if (offset !== null) yield { pack, offset };
}

/** What could not be written down is found again. */
async function closeList(damaged: DamageList, { log }: Seams): Promise<void> {
  await damaged.close().catch((error: unknown) => log.warn('damage was not written down', { error: String(error) }));
}

type Loaded = Pick<CheckParts, 'vault' | 'points' | 'source' | 'records'> & {
  damaged: DamageList;
  laneKeys: VaultKeys | null;
};

async function assemble(options: RepositoryOptions, file: RepositoryFile, loaded: Loaded): Promise<CheckParts> {
  const { seams, serverTime = async () => null, graceMs = DAY_MS, lockDays = 0, packWorker } = options;
  const { undeleteWaitMs = UNDELETE_WAIT_MS } = options;
  const { storage, trashed } = watchTrash(options.storage);
  const { vault, points, source, records, damaged, laneKeys: keys } = loaded;
  const state = await loadState({ storage, vault }, seams.log);
  const time = createRepositoryTime(state.keptTimeMs(), { clock: seams.clock, log: seams.log, serverTime });
  const flags = await loadFlags({ storage, vault }, seams.log);
  const marks = await loadMarks({ storage, vault }, seams.log);
  const verified = await openVerifiedPacks({ staging: storage.staging, log: seams.log, clock: seams.clock });
  const reliance = createReliance();
  const index = createDigestIndex(records, vault, (id) => reliance.touch(id));
  const damages = createDamages(damaged, index, seams);
  const turns = createTurns();
  const pages = openPageSink({ storage, vault, uuid: file.uuid, seams, idleMs: options.idlePackMs });
  const pageStore = createPageStore(pages, index);
  const pageReader = createPageReader({ index, source, damages });
  return {
    vault,
    points,
    source,
    records,
    turns,
    pageStore,
    storage,
    file,
    seams,
    index,
    reliance,
    trashed,
    state,
    time,
    flags,
    marks,
    tracking: marks,
    verified,
    damages,
    graceMs,
    undeleteWaitMs,
    lockDays,
    pages: pageReader,
    unwatched: createDigestIndex(records, vault),
    closePacks: async () => {
      await options.closePacks?.();
      await turns.take('pages', () => pageStore.close());
    },
    soundMaps: new Map(),
    sealing: createSealingHooks({
      index,
      reliance,
      pages: pageReader,
      storage,
      vault,
      seams,
      points,
      flags,
      time,
      lockDays,
    }),
    stateOf: (id) => marks.of(id)?.state ?? (points.sealed.get(id)?.manifest.suspect ? 'suspect' : 'good'),
    openPackWorker: packWorker
      ? () =>
          packWorker({
            uuid: file.uuid,
            keys,
          })
      : null,
  };
}

/** Of the checkpoint, then of the seal. */
function byTime(a: SealOutcome, b: SealOutcome): number {
  const [first, second] = [a, b].map(({ manifest }) => manifest.takenAt + manifest.sealedAt) as [string, string];
  return first < second ? -1 : Number(first > second);
}

const describeOpen = ({ open }: CheckParts['points']): ReturnType<Repository['listOpen']> =>
  [...open.values()].map(({ head, disks, lastWriteAt }) => ({
    restorePointId: head.restorePointId,
    run: head.spec.run,
    vmName: head.spec.vmName,
    disks: [...disks.keys()],
    lastWriteAt: new Date(lastWriteAt).toISOString(),
  }));

type Keys = { laneKeys: VaultKeys | null; takeUpKeys: () => Promise<void> };

const describeOne = ({ flags, time, marks }: CheckParts, sealed: SealOutcome): SealedRestorePoint => ({
  ...sealed,
  flags: describeFlags(flags.of(sealed.restorePointId), time.lastMs(), sealed.manifest.sealedAt),
  mark: marks.of(sealed.restorePointId),
});

function restoresThere(parts: CheckParts, whileThere: <T>(work: () => Promise<T>) => Promise<T>): RestoreSource {
  const restores = createRestoreSource(parts, (digest) => bringBack(parts, digest));
  return {
    ...restores,
    begin: async (connection, hello) => {
      // What is restored is held at once: a removal may be on its way.
      const begun = await restores.begin(connection, hello);
      try {
        return await whileThere(() => Promise.resolve(begun));
      } catch (error) {
        await restores.end(connection);
        throw error;
      }
    },
    // What is missing because all is away is not damage.
    damaged: (...of) => whileThere(() => restores.damaged(...of)),
  };
}

function facade(parts: CheckParts, { laneKeys, takeUpKeys }: Keys, shut: () => Promise<void>): Repository {
  const { points } = parts;
  let deadBytes: number | null = null;
  const { statistics, ...verbs } = { ...createMaintenance(parts), ...createChecking(parts, () => deadBytes) };
  const placeTrashed = createTrashedPlaces(parts);
  const closing = new AbortController();
  let closed: Promise<void> | null = null;
  const whileThere = async <T>(work: () => Promise<T>): Promise<T> => {
    closing.signal.throwIfAborted();
    await checkStillThere(parts.storage.staging, parts.file);
    closing.signal.throwIfAborted();
    return work();
  };
  const inTurn = <T>(run: string, work: () => Promise<T>): Promise<T> =>
    parts.turns.take(`run ${run}`, () => whileThere(work));
  const untilClosing = <W extends { signal: AbortSignal }>(work: W): W => ({
    ...work,
    signal: AbortSignal.any([work.signal, closing.signal]),
  });
  const viewOf = (sealed: SealOutcome): SealedRestorePoint => describeOne(parts, sealed);
  const listSealed = (): SealedRestorePoint[] => [...points.sealed.values()].sort(byTime).map(viewOf);
  return {
    ...verbs,
    collect: (options) =>
      whileThere(async () => {
        const report = await verbs.collect(untilClosing(options));
        if (report.stopped === null) deadBytes = report.deadBytesLeft;
        return report;
      }),
    check: (request, work) => whileThere(() => verbs.check(request, untilClosing(work))),
    statistics: () => whileThere(() => statistics.ofRepository(closing.signal)),
    statisticsOf: (id) => whileThere(() => statistics.ofPoint(id, closing.signal)),
    repair: (work) => whileThere(() => verbs.repair(untilClosing(work))),
    removeRestorePoint: (id, options) => whileThere(() => verbs.removeRestorePoint(id, options)),
    restoreFromTrash: (id) => whileThere(() => verbs.restoreFromTrash(id)),
    resetClock: (today) => whileThere(() => verbs.resetClock(today)),
    setFlags: (id, flags) => whileThere(() => verbs.setFlags(id, flags)),
    repositoryId: parts.file.repository,
    laneKeys,
    openRestorePoint: (spec) =>
      inTurn(spec.run, async () => {
        await takeUpKeys();
        return openRestorePoint(parts, spec);
      }),
    declareDisks: (of) => inTurn(of.run, () => declareDisks(parts, of)),
    assignTransfer: (request) => inTurn(request.run, () => assignTransfer(parts, request)),
    seal: (request) => inTurn(request.run, () => withTrash(parts, () => sealRestorePoint(parts, request))),
    abort: (of) => inTurn(of.run, () => abortRestorePoint(parts, of)),
    registrar: createRegistrar({
      ...parts,
      clock: parts.seams.clock,
      trashedOf: (lineage) => trashedOfLineage(parts, lineage),
      suspect: (id, why) => parts.marks.set(id, 'suspect', why, new Date(parts.seams.clock.now()).toISOString()),
    }),
    restoreSource: restoresThere(parts, whileThere),
    rehearse: (restorePointId, run) => void requireOpen(points, restorePointId, run),
    describeSealed: (restorePointId) => requireSealed(points, restorePointId),
    listSealed,
    survey: () => whileThere(() => surveyPoints(parts, listSealed)),
    describeTrashed: (ids) => whileThere(() => describeTrashed(parts, ids, viewOf)),
    placeTrashed: (ids) => whileThere(() => placeTrashed(ids)),
    listOpen: () => describeOpen(points),
    close: () => {
      closing.abort(new TidemarkError('HOST_DRAINING', `repository ${parts.file.repository} is being closed`));
      return (closed ??= shut());
    },
  };
}

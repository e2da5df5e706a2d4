/** Opens a repository: lock, packs a dead process left, index, restore points; then it serves. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import type { RepositoryFile } from '../../schema/repository/documents.ts';
import type { VaultKeys } from '../../schema/repository/keys.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { loadIndex } from './index/load-index.ts';
import { recoverOpenPacks } from './pack/pack-reader.ts';
import { openPageSink } from './pack/record-sink.ts';
import { openRecordSource } from './pack/record-source.ts';
import { loadFlags } from './maintenance/flags.ts';
import { createSealingHooks } from './maintenance/locks.ts';
import { createMaintenance, sourceWithTrash, withTrash } from './maintenance/maintenance.ts';
import type { MaintenanceParts } from './maintenance/maintenance-parts.ts';
import { loadState } from './maintenance/repository-state.ts';
import { createRepositoryTime, DAY_MS } from './maintenance/repository-time.ts';
import type { Repository, RepositoryOptions } from './repository.ts';
import { abortRestorePoint } from './restore-point/abort.ts';
import { assignTransfer } from './restore-point/assign-transfer.ts';
import { createDigestIndex } from './restore-point/digest-index.ts';
import { declareDisks, openRestorePoint } from './restore-point/opening.ts';
import { createPageReader } from './restore-point/page-reader.ts';
import { createPageStore } from './restore-point/page-store.ts';
import { loadPoints, requireOpen, requireSealed } from './restore-point/points.ts';
import { createReliance } from './restore-point/reliance.ts';
import { createRegistrar } from './restore-point/registrar.ts';
import { createRestoreSource } from './restore-point/restore-source.ts';
import { sealRestorePoint } from './restore-point/seal.ts';
import { claimRepository, type ClaimedRepository } from './storage/claim-repository.ts';
import { createTurns } from './storage/turns.ts';

/**
 * REPOSITORY_NOT_ONE, REPOSITORY_IN_USE, REPOSITORY_NEWER, REPOSITORY_CORRUPT (repository.json); KEY_MISSING, WRONG_KEY,
 * NOT_ENCRYPTED, TAMPERED; STORAGE_ERROR. What a process before this one was killed over is taken up: packs, index, open restore points with their windows and fences.
 */
export async function openRepository(options: RepositoryOptions): Promise<Repository> {
  const claimed = await claimRepository(options.storage.staging, options);
  try {
    return await serve(options, claimed);
  } catch (error) {
    claimed.release();
    throw error;
  }
}

async function serve(options: RepositoryOptions, { file, keys, release }: ClaimedRepository): Promise<Repository> {
  const { storage, indexFolder, seams } = options;
  const laneKeys = keys?.vault ?? null;
  const vault = openVault(laneKeys, seams.random);
  const left = await recoverOpenPacks(storage, file.uuid, seams.log);
  const records = await loadIndex({ storage, file, indexFolder, seams }, left);
  const points = await loadPoints({
    storage,
    vault,
    clock: seams.clock,
    log: seams.log,
    index: createDigestIndex(records, vault),
  });
  const source = openRecordSource({ storage, vault });
  const parts = await assemble(options, file, { vault, points, source, records });
  return facade(parts, laneKeys, async () => {
    await parts.turns.idle();
    for (const point of points.open.values()) await point.ledger.close();
    await parts.pageStore.close();
    await source.close();
    await records.close();
    release();
  });
}

type Loaded = Pick<MaintenanceParts, 'vault' | 'points' | 'source' | 'records'>;

async function assemble(options: RepositoryOptions, file: RepositoryFile, loaded: Loaded): Promise<MaintenanceParts> {
  const { storage, seams, serverTime = async () => null, graceMs = DAY_MS, lockDays = 0 } = options;
  const { vault, points, source, records } = loaded;
  const state = await loadState({ storage, vault }, seams.log);
  const time = createRepositoryTime(state.keptTimeMs(), { clock: seams.clock, log: seams.log, serverTime });
  const flags = await loadFlags({ storage, vault }, seams.log);
  const reliance = createReliance();
  const index = createDigestIndex(records, vault, reliance.touch);
  return {
    ...loaded,
    ...{ storage, file, seams, index, reliance, state, time, flags, graceMs, lockDays },
    pages: createPageReader(index, source),
    unwatched: createDigestIndex(records, vault),
    pageStore: createPageStore(openPageSink({ storage, vault, uuid: file.uuid, seams }), index),
    turns: createTurns(),
    soundMaps: new Map(),
    sealing: createSealingHooks({ storage, vault, seams, points, flags, time, lockDays }),
    stateOf: (id) => (points.sealed.get(id)?.manifest.suspect ? 'suspect' : 'good'),
  };
}

/** Of the checkpoint, then of the seal. */
function byTime(a: SealOutcome, b: SealOutcome): number {
  const [first, second] = [a, b].map(({ manifest }) => manifest.takenAt + manifest.sealedAt) as [string, string];
  return first < second ? -1 : Number(first > second);
}

function facade(parts: MaintenanceParts, laneKeys: VaultKeys | null, shut: () => Promise<void>): Repository {
  const { points } = parts;
  const verbs = createMaintenance(parts);
  const closing = new AbortController();
  let closed: Promise<void> | null = null;
  const unlessClosing = <T>(work: () => Promise<T>): Promise<T> =>
    closing.signal.aborted ? Promise.reject(closing.signal.reason as TidemarkError) : work();
  const inTurn = <T>(run: string, work: () => Promise<T>): Promise<T> =>
    unlessClosing(() => parts.turns.take(`run ${run}`, work));
  return {
    ...verbs,
    collect: (options) =>
      unlessClosing(() => verbs.collect({ ...options, signal: AbortSignal.any([options.signal, closing.signal]) })),
    removeRestorePoint: (id, options) => unlessClosing(() => verbs.removeRestorePoint(id, options)),
    restoreFromTrash: (id) => unlessClosing(() => verbs.restoreFromTrash(id)),
    setFlags: (id, flags) => unlessClosing(() => verbs.setFlags(id, flags)),
    repositoryId: parts.file.repository,
    laneKeys,
    openRestorePoint: (spec) => inTurn(spec.run, () => openRestorePoint(parts, spec)),
    declareDisks: (of) => inTurn(of.run, () => declareDisks(parts, of)),
    assignTransfer: (request) => inTurn(request.run, () => assignTransfer(parts, request)),
    seal: (request) => inTurn(request.run, () => withTrash(parts, () => sealRestorePoint(parts, request))),
    abort: (of) => inTurn(of.run, () => abortRestorePoint(parts, of)),
    registrar: createRegistrar({ ...parts, clock: parts.seams.clock }),
    restoreSource: sourceWithTrash(parts, createRestoreSource(parts)),
    rehearse: (restorePointId, run) => void requireOpen(points, restorePointId, run),
    describeSealed: (restorePointId) => requireSealed(points, restorePointId),
    listSealed: () =>
      [...points.sealed.values()].sort(byTime).map((sealed) => ({
        ...sealed,
        flags: verbs.flagsOf(sealed.restorePointId),
      })),
    listOpen: () =>
      [...points.open.values()].map(({ head, disks, lastWriteAt }) => ({
        restorePointId: head.restorePointId,
        run: head.spec.run,
        disks: [...disks.keys()],
        lastWriteAt: new Date(lastWriteAt).toISOString(),
      })),
    close: () => {
      closing.abort(new TidemarkError('HOST_DRAINING', `repository ${parts.file.repository} is being closed`));
      return (closed ??= shut());
    },
  };
}

/** Opens a repository: lock, packs a dead process left, index, restore points; then it serves. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import type { VaultKeys } from '../../schema/repository/keys.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { keepImage, forgetImage, loadIndex, type IndexOwner, type LoadedIndex } from './index/load-index.ts';
import { recoverOpenPacks } from './pack/pack-reader.ts';
import { openPageSink } from './pack/record-sink.ts';
import { openRecordSource } from './pack/record-source.ts';
import type { Repository, RepositoryOptions } from './repository.ts';
import { abortRestorePoint } from './restore-point/abort.ts';
import { assignTransfer } from './restore-point/assign-transfer.ts';
import { createDigestIndex } from './restore-point/digest-index.ts';
import { declareDisks, openRestorePoint } from './restore-point/opening.ts';
import { createPageReader } from './restore-point/page-reader.ts';
import { createPageStore } from './restore-point/page-store.ts';
import type { Parts } from './restore-point/parts.ts';
import { loadPoints, requireOpen, requireSealed } from './restore-point/points.ts';
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
  const owner: IndexOwner = { storage, file, indexFolder, log: seams.log };
  const loaded = await loadIndex(owner, left);
  const index = createDigestIndex(loaded.index, vault);
  const points = await loadPoints({ storage, vault, clock: seams.clock, log: seams.log, index });
  const source = openRecordSource({ storage, vault });
  const parts: Parts = {
    storage,
    vault,
    file,
    seams,
    points,
    index,
    pages: createPageReader(index, source),
    pageStore: createPageStore(openPageSink({ storage, vault, uuid: file.uuid, seams }), index),
    turns: createTurns(),
    soundMaps: new Map(),
  };
  return facade(parts, laneKeys, async () => {
    await parts.turns.idle();
    for (const point of points.open.values()) await point.ledger.close();
    await parts.pageStore.close();
    await source.close();
    await letGo(owner, loaded);
    release();
  });
}

/** What was found damaged is forgotten in memory only: the next start shall see for itself. */
async function letGo(owner: IndexOwner, loaded: LoadedIndex): Promise<void> {
  if (loaded.index.forgottenCount() > 0) await forgetImage(owner.indexFolder);
  else await keepImage(owner, loaded);
}

/** Of the checkpoint, then of the seal. */
function byTime(a: SealOutcome, b: SealOutcome): number {
  const [first, second] = [a, b].map(({ manifest }) => manifest.takenAt + manifest.sealedAt) as [string, string];
  return first < second ? -1 : Number(first > second);
}

function facade(parts: Parts, laneKeys: VaultKeys | null, shut: () => Promise<void>): Repository {
  const { points } = parts;
  let closing: Promise<void> | null = null;
  const inTurn = <T>(run: string, work: () => Promise<T>): Promise<T> => {
    if (closing)
      return Promise.reject(new TidemarkError('HOST_DRAINING', `repository ${parts.file.repository} is being closed`));
    return parts.turns.take(`run ${run}`, work);
  };
  return {
    repositoryId: parts.file.repository,
    laneKeys,
    openRestorePoint: (spec) => inTurn(spec.run, () => openRestorePoint(parts, spec)),
    declareDisks: (of) => inTurn(of.run, () => declareDisks(parts, of)),
    assignTransfer: (request) => inTurn(request.run, () => assignTransfer(parts, request)),
    seal: (request) => inTurn(request.run, () => sealRestorePoint(parts, request)),
    abort: (of) => inTurn(of.run, () => abortRestorePoint(parts, of)),
    registrar: createRegistrar({ ...parts, clock: parts.seams.clock }),
    restoreSource: createRestoreSource(parts),
    rehearse: (restorePointId, run) => void requireOpen(points, restorePointId, run),
    describeSealed: (restorePointId) => requireSealed(points, restorePointId),
    listSealed: () => [...points.sealed.values()].sort(byTime),
    listOpen: () =>
      [...points.open.values()].map(({ head, disks, lastWriteAt }) => ({
        restorePointId: head.restorePointId,
        run: head.spec.run,
        disks: [...disks.keys()],
        lastWriteAt: new Date(lastWriteAt).toISOString(),
      })),
    close: () => (closing ??= shut()),
  };
}

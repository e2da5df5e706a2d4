/** Opens a repository: lock, packs a dead process left, index, restore points; then it serves. */
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { SealOutcome } from '../../schema/domain/restore-point.ts';
import type { RecordSource, Seams } from '../../schema/domain/seams.ts';
import type { VaultKeys } from '../../schema/repository/keys.ts';
import { openVault } from '../../schema/repository/vault.ts';
import { keepImage, forgetImage, loadIndex, type IndexOwner, type LoadedIndex } from './index/load-index.ts';
import { openChecking, type Checking } from './maintenance/checking.ts';
import { openDamageList, type DamageList } from './pack/damage-list.ts';
import { recoverOpenPacks } from './pack/pack-reader.ts';
import { openPageSink } from './pack/record-sink.ts';
import { openRecordSource } from './pack/record-source.ts';
import type { Repository, RepositoryOptions } from './repository.ts';
import { abortRestorePoint } from './restore-point/abort.ts';
import { assignTransfer } from './restore-point/assign-transfer.ts';
import { createDamages } from './restore-point/damages.ts';
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
  const damaged = await openDamageList({ staging: storage.staging, log: seams.log });
  const owner: IndexOwner = { storage, file, indexFolder, log: seams.log };
  const loaded = await loadIndex(owner, left, placesOf(damaged));
  const index = createDigestIndex(loaded.index, vault);
  const damages = createDamages(damaged, index, seams);
  const points = await loadPoints({ storage, vault, clock: seams.clock, log: seams.log, index });
  const source = openRecordSource({ storage, vault });
  const parts: Parts & { source: RecordSource } = {
    storage,
    vault,
    file,
    seams,
    points,
    index,
    pages: createPageReader({ index, source, damages }),
    pageStore: createPageStore(openPageSink({ storage, vault, uuid: file.uuid, seams }), index),
    turns: createTurns(),
    soundMaps: new Map(),
    damages,
    source,
  };
  const checking = await openChecking(parts, laneKeys, options);
  return facade(parts, { laneKeys, checking }, async () => {
    await parts.turns.idle();
    await checking.close();
    for (const point of points.open.values()) await point.ledger.close();
    await parts.pageStore.close();
    await source.close();
    await closeList(damaged, seams);
    await letGo(owner, loaded);
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

type Opened = { laneKeys: VaultKeys | null; checking: Checking };

function facade(parts: Parts, { laneKeys, checking }: Opened, shut: () => Promise<void>): Repository {
  const { points } = parts;
  const closing = new AbortController();
  let closed: Promise<void> | null = null;
  const unlessClosing = <T>(work: () => Promise<T>): Promise<T> =>
    closing.signal.aborted ? Promise.reject(closing.signal.reason as TidemarkError) : work();
  const inTurn = <T>(run: string, work: () => Promise<T>): Promise<T> =>
    unlessClosing(() => parts.turns.take(`run ${run}`, work));
  const untilClosing = <W extends { signal: AbortSignal }>(work: W): W => ({
    ...work,
    signal: AbortSignal.any([work.signal, closing.signal]),
  });
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
    listSealed: () =>
      [...points.sealed.values()]
        .sort(byTime)
        .map((sealed) => ({ ...sealed, mark: checking.markOf(sealed.restorePointId) })),
    listOpen: () =>
      [...points.open.values()].map(({ head, disks, lastWriteAt }) => ({
        restorePointId: head.restorePointId,
        run: head.spec.run,
        disks: [...disks.keys()],
        lastWriteAt: new Date(lastWriteAt).toISOString(),
      })),
    check: (request, work) => unlessClosing(() => checking.check(request, untilClosing(work))),
    markOf: (id) => checking.markOf(id),
    close: () => {
      closing.abort(new TidemarkError('HOST_DRAINING', `repository ${parts.file.repository} is being closed`));
      return (closed ??= shut());
    },
  };
}

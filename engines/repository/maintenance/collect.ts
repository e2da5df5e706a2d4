/**
 * Collection: packs of which nothing, or little, is needed any more make room, while sessions go on, and small ones are
 * merged. What is dead is in a pack that was closed before the collection began, is reached from no root, and was touched
 * by nobody since: not promised, not looked up, not written. A crash at any moment leaves a repository that is whole; the
 * next collection begins anew.
 */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { CollectionReport, MaintenanceProgress } from '../../../schema/domain/maintenance.ts';
import { listClosedPacks, type PackName } from '../pack/pack-reader.ts';
import { choosePacks } from './choose-packs.ts';
import { beginEpoch } from './begin-epoch.ts';
import { findExpired, forgetLostFlags, removeExpired } from './expire-trash.ts';
import { Living } from './living.ts';
import { beginLocks, protectLocked, type Protect } from './locks.ts';
import type { MaintenanceParts } from './maintenance-parts.ts';
import { markLiving } from './mark.ts';
import { accountPacks, type Accounts } from './pack-account.ts';
import { createTeller } from './progress.ts';
import type { TimeReading } from './repository-time.ts';
import { PackRewriter } from './rewrite-packs.ts';
import { takeRoots, type Roots } from './roots.ts';
import { takeUpManifests } from './take-up-manifests.ts';
import { listTrash, type Trash } from './trash-list.ts';
import { TrashWatch } from './trash-watch.ts';

export type CollectOptions = {
  /** Ends it between two packs; it rejects with the signal's reason, and all is well. */
  signal: AbortSignal;
  onProgress: (progress: MaintenanceProgress) => void;
  /** Ends when so many bytes were copied; what is left is left for the next one. */
  packBudgetBytes?: number;
};

type Run = {
  parts: MaintenanceParts;
  options: CollectOptions;
  time: TimeReading;
  report: CollectionReport;
  tell: ReturnType<typeof createTeller>;
};

/** Not while another one runs. REPOSITORY_FULL when there is no room for as much as its beginning. */
export async function collect(
  parts: MaintenanceParts,
  options: CollectOptions,
  protect: Protect,
): Promise<CollectionReport> {
  const time = await parts.time.read();
  await takeUpManifests(parts);
  await beginLocks(parts, time);
  const trash = await listTrash(parts);
  await parts.closePacks();
  const candidates = await listClosedPacks(parts.storage);
  const epoch = await beginEpoch(parts, time, trash);
  const run: Run = { parts, options, time, report: newReport(epoch), tell: createTeller(parts.seams.clock, options) };
  const { report } = run;
  // Told first, so that whatever else ends the collection is told in its place.
  report.stopped = time.doubt;
  try {
    await work(run, trash, candidates, protect);
  } catch (error) {
    options.signal.throwIfAborted();
    report.stopped = reasonOf(error);
    parts.seams.log.warn('collection stopped', { epoch, error: messageOf(error) });
  }
  return report;
}

const newReport = (epoch: number): CollectionReport => ({
  epoch,
  stopped: null,
  liveBytes: 0,
  deadBytesLeft: 0,
  packsTrashed: 0,
  packsRewritten: 0,
  packsMerged: 0,
  rewrittenBytes: 0,
  packsRemoved: 0,
  removedBytes: 0,
  packsRestored: 0,
  packsLocked: 0,
});

/** What is not one of ours is a bug, and is thrown. */
function reasonOf(error: unknown): Reason {
  const code = errorCodeOf(error);
  if (code === undefined || code === 'BUG') throw error;
  return { code, message: messageOf(error) };
}

async function work(run: Run, trash: Trash, candidates: readonly PackName[], protect: Protect): Promise<void> {
  const { parts, options, report, time } = run;
  const { signal } = options;
  const watch = new TrashWatch();
  const expired = await findExpired(parts, trash, time, watch);
  const living = new Living({
    capacity: parts.records.recordCount(),
    epoch: report.epoch,
    locks: { old: parts.flags.hasLocks(), new: parts.lockDays > 0 },
    watch,
  });
  const { roots, stop } = await begin(parts, living);
  try {
    const progress = run.tell('marking', 0);
    report.packsRestored += await markLiving(parts, { living, roots, nowMs: time.nowMs, signal, progress });
    await removeExpired(parts, expired, watch, report, signal);
    const accounts = await accountPacks(parts.records, living, signal);
    await protectLocked(parts, candidates, accounts, time.nowMs, protect);
    await makeRoom(run, candidates, accounts, living);
    await forgetLostFlags(parts);
  } finally {
    stop();
  }
}

/** In the turn of those who seal: there is none that wrote pages, and not yet the manifest that needs them. */
function begin(parts: MaintenanceParts, living: Living): Promise<{ roots: Roots; stop: () => void }> {
  const { turns, reliance } = parts;
  return turns.take('pages', async () => {
    const stop = reliance.watch(living.touch);
    return { roots: takeRoots(parts), stop };
  });
}

async function makeRoom(
  { parts, options, report, tell }: Run,
  candidates: readonly PackName[],
  accounts: Accounts,
  living: Living,
): Promise<void> {
  const damaged = new Set([...parts.damages.list.lines()].map(({ pack }) => pack));
  const chosen = choosePacks(candidates, accounts, (packId) => damaged.has(packId));
  const { dead, partlyDead, merges, lockedCount } = chosen;
  report.liveBytes = accounts.liveBytes;
  report.deadBytesLeft = accounts.deadBytes;
  report.packsLocked = lockedCount;
  const deadBytesOf = ({ packId }: PackName): number => accounts.packs.get(packId)?.deadBytes ?? 0;
  const going = [...dead, ...partlyDead, ...merges.flatMap(({ packs }) => packs)];
  const progress = tell(
    'rewriting',
    going.reduce((sum, pack) => sum + deadBytesOf(pack), 0),
  );
  const { signal, packBudgetBytes: budgetBytes = Infinity } = options;
  const trashed = (pack: PackName): void => {
    report.deadBytesLeft -= deadBytesOf(pack);
    progress(accounts.deadBytes - report.deadBytesLeft);
  };
  const rewriter = new PackRewriter(parts, { living, epoch: report.epoch, signal, budgetBytes, report, trashed });
  await rewriter.trashDead(dead);
  await rewriter.rewrite(partlyDead);
  // Last: it makes no room.
  await rewriter.merge(merges);
}

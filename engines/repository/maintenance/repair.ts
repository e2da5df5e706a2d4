/**
 * Salvages what is sound: packs in the trash that something needs come back, what is sound of damaged packs goes to new
 * ones, manifests that this process still knows are written again; then restore points are judged anew. Nothing is
 * removed: what was replaced rests in the trash. A dry run reports what would come of it, and changes nothing.
 */
import type { RepairReport } from '../../../schema/domain/maintenance.ts';
import { listClosedPacks, type PackName } from '../pack/pack-reader.ts';
import { layout } from '../storage/layout.ts';
import { checkManifests, type BadManifest } from './check-manifests.ts';
import type { CheckParts } from './check-parts.ts';
import { isMissing } from './check-report.ts';
import { judgePoints, type Judgement } from './judge-points.ts';
import type { LongWork } from './long-work.ts';
import { markPoints } from './mark-points.ts';
import { createPackPresence } from './pack-presence.ts';
import type { PackWorker } from './pack-worker.ts';
import { createTeller } from './progress.ts';
import { createRepairView, type RepairView } from './repair-view.ts';
import { isKnown, rewriteManifests } from './rewrite-manifests.ts';
import { bringPackBack, packsWith } from './trash.ts';

/** `signal` ends it between two packs; it rejects with the signal's reason. */
export type RepairWork = LongWork & { dryRun: boolean };

type Run = {
  parts: CheckParts;
  work: RepairWork;
  /** As things are, or as they would be. */
  view: RepairView;
  report: RepairReport;
  tell: ReturnType<typeof createTeller>;
};

/** While neither a check nor a collection runs. REPOSITORY_FULL, STORAGE_ERROR: what was done until then stays. */
export async function repairRepository(
  parts: CheckParts,
  work: RepairWork,
  openPackWorker: () => PackWorker,
): Promise<RepairReport> {
  const view = createRepairView(parts);
  try {
    return await repairWith(view, parts, work, openPackWorker);
  } finally {
    await view.close();
  }
}

async function repairWith(
  view: RepairView,
  parts: CheckParts,
  work: RepairWork,
  openPackWorker: () => PackWorker,
): Promise<RepairReport> {
  const run: Run = {
    parts,
    work,
    view,
    report: { packsSalvaged: 0, recordsSaved: 0, recordsLost: 0, packsRestored: 0, damaged: [], whole: 0 },
    tell: createTeller(parts.seams.clock, work),
  };
  await parts.closePacks();
  const packs = await listClosedPacks(parts.storage);
  await createPackPresence(parts).lookAtAll(packs, work.signal);
  await salvagePacks(run, packs, openPackWorker);
  const manifests = await mendManifests(run);
  const judgement = await judgeWithTrash(run);
  if (!work.dryRun) await markPoints(parts, judgement, manifests);
  await parts.damages.list.settle();
  return concluded(run, judgement, manifests);
}

/** What is needed and nowhere is looked for in the trash, until that brings nothing more: pages lead on to pages. */
async function judgeWithTrash(run: Run): Promise<Judgement> {
  const { parts, view, work } = run;
  for (;;) {
    const points = [...parts.points.sealed.values()];
    const tell = run.tell('walking maps', points.length);
    const judgement = await judgePoints(view.parts(), points, { presence: view.presence(), signal: work.signal, tell });
    const ids = [...judgement.lost.keys()].map((id) => Buffer.from(id, 'hex'));
    let found = 0;
    if (ids.length > 0)
      for await (const { pack, listing } of packsWith(parts, ids)) {
        if (work.dryRun ? view.addTrashed(pack, listing) : await bringPackBack(parts, pack)) found += 1;
      }
    run.report.packsRestored += found;
    if (found === 0) return judgement;
  }
}

async function salvagePacks(run: Run, packs: readonly PackName[], openPackWorker: () => PackWorker): Promise<void> {
  const damaged = packs.filter((pack) => isWorthIt(run.parts, pack));
  if (damaged.length === 0) return;
  const tell = run.tell('copying what is sound', damaged.length);
  const worker = openPackWorker();
  const stop = (): void => void worker.close();
  run.work.signal.addEventListener('abort', stop, { once: true });
  try {
    for (const [at, pack] of damaged.entries()) {
      run.work.signal.throwIfAborted();
      await salvageOne(run, pack, worker);
      tell(at + 1);
    }
  } catch (error) {
    run.work.signal.throwIfAborted();
    throw error;
  } finally {
    run.work.signal.removeEventListener('abort', stop);
    await worker.close();
  }
}

/** Where restore points are locked packs stay where they are; then only what the index cannot find is worth a copy. */
const mayBeLocked = ({ lockDays, flags }: CheckParts): boolean => lockDays > 0 || flags.hasLocks();

function isWorthIt(parts: CheckParts, { packId }: PackName): boolean {
  const lines = [...parts.damages.list.linesOf(packId)].filter((line) => !isMissing(line));
  return mayBeLocked(parts) ? lines.some(({ kind }) => kind === 'pack') : lines.length > 0;
}

async function salvageOne({ parts, work, view, report }: Run, pack: PackName, worker: PackWorker): Promise<void> {
  const { records, storage, state, seams } = parts;
  const stays = mayBeLocked(parts);
  const only = stays ? await unknownIn(parts, pack, worker) : null;
  if (only?.length === 0) return;
  const newPackId = work.dryRun ? null : Buffer.from(seams.random.bytes(16)).toString('hex');
  const salvaged = await worker.salvage({ ...pack, newPackId, only });
  if (!salvaged) return;
  const { saved, lost } = salvaged;
  report.packsSalvaged += 1;
  report.recordsSaved += saved.length;
  report.recordsLost += lost.filter((id) => isOnlyIn(parts, pack, id)).length;
  if (work.dryRun) return view.addSaved(saved);
  records.apply(saved);
  if (stays) return;
  records.dropPacks([pack.packId]);
  await storage.store.moveToTrash({ epoch: state.epoch(), name: layout.closedPack(pack.contents, pack.packId) });
  seams.log.warn('damaged pack replaced by what was sound in it', { pack: pack.packId, by: newPackId });
}

function isOnlyIn({ records }: CheckParts, { packId }: PackName, id: Uint8Array): boolean {
  const place = records.lookup(id)?.place;
  return place === undefined || place.pack === packId;
}

/** Offsets of sound records that the index does not know. */
async function unknownIn({ records }: CheckParts, pack: PackName, worker: PackWorker): Promise<number[]> {
  const salvaged = await worker.salvage({ ...pack, newPackId: null, only: null });
  const unknown = salvaged?.saved.filter(({ id }) => records.lookup(id) === null) ?? [];
  return unknown.map(({ place }) => place.offset);
}

/** Those that stay bad. */
async function mendManifests({ parts, work }: Run): Promise<BadManifest[]> {
  const bad = await checkManifests(parts, () => true, work.signal);
  const mended = new Set(bad.filter((one) => isKnown(parts, one)));
  if (!work.dryRun) await rewriteManifests(parts, [...mended]);
  return bad.filter((one) => !mended.has(one));
}

function concluded({ report }: Run, { points }: Judgement, manifests: readonly BadManifest[]): RepairReport {
  const bad = new Set(manifests.map(({ restorePointId }) => restorePointId));
  for (const [restorePointId, { missingBytes }] of points) {
    if (missingBytes > 0 || bad.has(restorePointId)) report.damaged.push({ restorePointId, missingBytes });
    else report.whole += 1;
  }
  for (const restorePointId of bad)
    if (!points.has(restorePointId)) report.damaged.push({ restorePointId, missingBytes: 0 });
  return report;
}

/**
 * The check of a repository. Quick: manifests, maps with their Merkle roots, and that whatever they name is there. Full:
 * before that, packs are read whole, the longest unread first; a bound, or a kill, ends it where the next goes on. What is
 * damaged is listed, durably, so that the next session of the VM heals what it can; restore points hit are marked.
 */
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type { CheckReport, CheckRequest } from '../../../schema/domain/maintenance.ts';
import type { SealOutcome } from '../../../schema/domain/restore-point.ts';
import { recordsOf } from '../index/pack-records.ts';
import { listClosedPacks, readClosedPack, type PackName } from '../pack/pack-reader.ts';
import { layout, manifestIdOf } from '../storage/layout.ts';
import { checkManifests, type BadManifest } from './check-manifests.ts';
import { isMissing, nowhereOf, reportDamages } from './check-report.ts';
import type { CheckParts } from './check-parts.ts';
import { judgePoints, type Judgement } from './judge-points.ts';
import { markPoints } from './mark-points.ts';
import type { LongWork } from './long-work.ts';
import { createPackPresence, type PackPresence } from './pack-presence.ts';
import { packWorkerOf } from './pack-worker.ts';
import { packsOfPoints } from './packs-of-points.ts';
import { takeUpManifests } from './take-up-manifests.ts';
import { createTeller } from './progress.ts';
import { listTrash } from './trash-list.ts';
import { verifyDue, type Verified } from './verify-due.ts';

/** `signal` ends it; it rejects with the signal's reason. */
type Scope = {
  /** What the check is called in `verified`: says nothing that an encrypted repository hides. */
  name: string;
  isWhole: boolean;
  points: SealOutcome[];
  has: (id: RestorePointId, vmFolder: string) => boolean;
};

type Run = { parts: CheckParts; request: CheckRequest; work: LongWork; scope: Scope; presence: PackPresence };

/**
 * RESTORE_POINT_NOT_FOUND; BAD_REQUEST: packs cannot be read here. STORAGE_ERROR, REPOSITORY_FULL: it goes on when it is
 * asked for again.
 */
export async function checkRepository(parts: CheckParts, request: CheckRequest, work: LongWork): Promise<CheckReport> {
  const before = new Set(parts.damages.list.lines());
  await takeUpManifests(parts);
  const scope = scopeOf(parts, request);
  const run = { parts, request, work, scope, presence: createPackPresence(parts) };
  const manifests = await checkManifests(parts, scope.has, work.signal);
  if (scope.points.length === 0 && manifests.length === 0 && request.restorePointId !== null) throw unknown(request);
  if (request.depth !== 'quick') await parts.closePacks();
  const packs = await packsInScope(run);
  await takeBack(parts, packs);
  await run.presence.lookAtAll(packs, work.signal);
  const verified = request.depth === 'quick' ? null : await verify(run, request.depth, packs);
  const judgement = await judge(run, manifests);
  const marks = await markPoints(parts, judgement, manifests);
  if (scope.isWhole) await forgetGone(parts, packs, judgement);
  await parts.damages.list.settle();
  return {
    depth: request.depth,
    whole: verified?.whole ?? true,
    restorePoints: scope.points.length,
    packs: verified?.packs ?? packs.length,
    checkedBytes: verified?.bytes ?? 0,
    openPacks: (await parts.storage.staging.list(layout.openPacks)).length,
    damages: reportDamages(parts, { judgement, manifests, packs, isWhole: scope.isWhole, before }),
    ...marks,
  };
}

const unknown = ({ restorePointId }: CheckRequest): TidemarkError =>
  new TidemarkError('RESTORE_POINT_NOT_FOUND', `no sealed restore point ${restorePointId}`, { restorePointId });

function scopeOf({ points, vault }: CheckParts, { vmId, restorePointId }: CheckRequest): Scope {
  const folder = vmId === null ? null : vault.nameOf(vmId);
  const has = (id: RestorePointId, vmFolder: string): boolean =>
    (folder === null || vmFolder === folder) && (restorePointId === null || id === restorePointId);
  return {
    name: restorePointId ? `restore point ${restorePointId}` : folder === null ? 'repository' : `vm ${folder}`,
    isWhole: folder === null && restorePointId === null,
    points: [...points.sealed.values()].filter((one) => has(one.restorePointId, vault.nameOf(one.manifest.vm.vmId))),
    has,
  };
}

/** All, or those that hold something of the restore points in question. */
async function packsInScope({ parts, scope, work }: Run): Promise<PackName[]> {
  const packs = await listClosedPacks(parts.storage);
  if (scope.isWhole) return packs;
  const used = await packsOfPoints(parts, scope.points, work.signal);
  return packs.filter(({ packId }) => used.has(packId));
}

/** Packs that were missed and are there again: a mount, a cable. */
async function takeBack({ damages, storage, file, records, seams }: CheckParts, packs: readonly PackName[]) {
  const missed = new Set([...damages.list.lines()].filter(isMissing).map(({ pack }) => pack));
  for (const name of packs) {
    const listing = missed.has(name.packId) ? await readClosedPack(storage, file.uuid, name, seams.log) : null;
    if (listing) records.returnPack(name.packId, recordsOf(listing));
  }
}

async function verify(
  { parts, request, work, scope, presence }: Run,
  depth: 'sums' | 'full',
  packs: readonly PackName[],
): Promise<Verified> {
  const { verified } = parts;
  const worker = packWorkerOf(parts)();
  const name = `${depth} ${scope.name}`;
  await verified.begin(name);
  const due = verified.due(name, depth, packs);
  const totalBytes = due.reduce((sum, { packId }) => sum + (presence.bytesOf(packId) ?? 0), 0);
  const tell = createTeller(parts.seams.clock, work)('reading packs', totalBytes);
  try {
    const done = await verifyDue(parts, {
      worker,
      presence,
      verified,
      depth,
      due,
      tell,
      bounds: request,
      signal: work.signal,
    });
    const existing = new Set(packs.map(({ packId }) => packId));
    if (done.whole) await verified.end(name, (pack) => !scope.isWhole || existing.has(pack));
    return done;
  } finally {
    await worker.close();
  }
}

/** Where there is damage, it may hit any restore point. Maps are walked in every part of a check: packs may be gone. */
async function judge(run: Run, manifests: readonly BadManifest[]): Promise<Judgement> {
  const { parts, scope } = run;
  const isHit = (): boolean => manifests.length > 0 || isMarked(parts) || !isEmpty(parts.damages.list.lines());
  const first = isHit() ? null : await judgeOnly(run, scope.points);
  return first && !isHit() ? first : judgeOnly(run, [...parts.points.sealed.values()]);
}

function judgeOnly({ parts, presence, work }: Run, points: readonly SealOutcome[]): Promise<Judgement> {
  const tell = createTeller(parts.seams.clock, work)('walking maps', points.length);
  return judgePoints(parts, points, { presence, signal: work.signal, tell });
}

const isMarked = ({ marks }: CheckParts): boolean => marks.ids().some((id) => marks.of(id)?.state === 'damaged');

/** What is said of packs and restore points that are no more, unless something is missing that may have been in them. */
async function forgetGone(
  { storage, damages, marks, points }: CheckParts,
  packs: readonly PackName[],
  judgement: Judgement,
): Promise<void> {
  const { list } = damages;
  if (isEmpty(list.lines()) && marks.ids().length === 0) return;
  // In the order in which packs move, so that none is in neither list: from open to closed, from the trash to closed.
  const open = await storage.staging.list(layout.openPacks);
  const trash = await listTrash({ storage });
  const closed = await listClosedPacks(storage);
  const known = new Set([...[...packs, ...trash.packs, ...closed].map(({ packId }) => packId), ...open]);
  const isLost = nowhereOf(list, judgement).length > 0;
  await list.sift((line) => (isMissing(line) ? isLost && !known.has(line.pack) : known.has(line.pack)));
  const inPlace = (await storage.store.list(layout.manifests)).map(manifestIdOf);
  const existing = new Set([...trash.manifests.map(({ restorePointId }) => restorePointId), ...inPlace]);
  for (const id of marks.ids()) if (!existing.has(id) && !points.sealed.has(id)) await marks.forget(id);
}

const isEmpty = (all: Iterable<unknown>): boolean => all[Symbol.iterator]().next().done === true;

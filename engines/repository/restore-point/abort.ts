/** Aborting: the repository says sealed or aborted, exactly one of them, for ever (invariant 2). */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { AbortOutcome } from '../../../schema/domain/restore-point.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import type { Tombstone } from '../../../schema/repository/documents.ts';
import { FORMAT_VERSION } from '../../../schema/repository/limits.ts';
import { layout } from '../storage/layout.ts';
import { findDecision, settle, whileClosing, writeTombstone, type Decision } from './decision.ts';
import type { OpenPoint } from './open-point.ts';
import type { Parts } from './parts.ts';
import { newestSealed, stateOfRun } from './points.ts';

/** `restorePointId` null: it never became known. */
export type AbortRequest = { restorePointId: RestorePointId | null; run: RunKey };

/**
 * In the run's turn. A run that was never opened is aborted all the same: should its opening still be on the way, it
 * is refused. RESTORE_POINT_NOT_FOUND when the restore point is another run's.
 */
export async function abortRestorePoint(parts: Parts, request: AbortRequest): Promise<AbortOutcome> {
  checkRun(parts, request);
  const known = stateOfRun(parts.points, request.run);
  const decision = known === null ? await abortUnknown(parts, request) : await decide(parts, known);
  return decision.state === 'sealed' ? { outcome: 'sealed', sealed: decision.sealed } : { outcome: 'aborted' };
}

function checkRun({ points }: Parts, { restorePointId: id, run }: AbortRequest): void {
  if (id === null) return;
  const owner =
    points.sealed.get(id)?.manifest.run ?? points.aborted.get(id)?.run ?? points.open.get(id)?.head.spec.run;
  if (owner !== undefined && owner !== run)
    throw new TidemarkError('RESTORE_POINT_NOT_FOUND', `restore point ${id} is not of run ${run}`, {
      restorePointId: id,
      run,
    });
}

async function decide(parts: Parts, known: NonNullable<ReturnType<typeof stateOfRun>>): Promise<Decision> {
  if (known.state !== 'open') return known;
  const { point } = known;
  const { restorePointId, spec } = point.head;
  const decision = await whileClosing(
    point,
    async () =>
      (await findDecision(parts, point.head)) ??
      (await bury(parts, point, tombstoneOf(parts, restorePointId, spec.run))),
  );
  await settle(parts, restorePointId, decision);
  return decision;
}

/**
 * What tracking says of a disk that was smaller meanwhile is not enough: what was cut off and grown again reads as zeros,
 * and no hypervisor calls that a change. Of a disk that is smaller still the next restore point takes over less.
 */
async function distrustShrunken({ points, tracking }: Parts, { head }: OpenPoint): Promise<void> {
  const base = newestSealed(points, ({ lineage }) => lineage === head.spec.lineage);
  for (const { plan } of base ? head.disks : []) {
    const before = base!.disks.find(({ diskKey }) => diskKey === plan.diskKey);
    if (before && plan.sizeBytes < before.sizeBytes) await tracking.distrust(base!.restorePointId, plan.diskKey);
  }
}

/** On a full disk reserve and ledger make room: they are worth nothing any more, whether or not the abort is complete. */
async function bury(parts: Parts, point: OpenPoint, tombstone: Tombstone): Promise<Decision> {
  const write = async (): Promise<Decision> => {
    await distrustShrunken(parts, point);
    return writeTombstone(parts, tombstone);
  };
  try {
    return await write();
  } catch (error) {
    if (errorCodeOf(error) !== 'REPOSITORY_FULL') throw error;
    for (const disk of point.disks.values()) disk.frames.fill(-1);
    await parts.storage.staging.remove(layout.reserve(tombstone.restorePointId));
    await point.ledger.empty();
    return write();
  }
}

async function abortUnknown(parts: Parts, { restorePointId, run }: AbortRequest): Promise<Decision> {
  const id = restorePointId !== null && isId128(restorePointId) ? restorePointId : freshId(parts);
  const decision = await writeTombstone(parts, tombstoneOf(parts, id, run));
  await settle(parts, id, decision);
  return decision;
}

const freshId = ({ seams }: Parts): RestorePointId =>
  Buffer.from(seams.random.bytes(16)).toString('hex') as RestorePointId;

const tombstoneOf = ({ seams }: Parts, restorePointId: RestorePointId, run: RunKey): Tombstone => ({
  format: FORMAT_VERSION,
  restorePointId,
  run,
  abortedAt: new Date(seams.clock.now()).toISOString(),
});

/** Retention of lineages, decided at the repository and by its own time: what no rule keeps goes to the trash. */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type { LineageId } from '../../../schema/domain/ids.ts';
import type {
  LineagePolicy,
  LineageRetention,
  PointDecision,
  RemovedSign,
  SealedRestorePoint,
  TrashedRestorePoint,
} from '../../../schema/domain/maintenance-sessions.ts';
import { stateOf } from '../../../schema/domain/maintenance-sessions.ts';
import type { RetentionDecision, RetentionPoint } from '../../../schema/domain/retention.ts';
import type { Repository } from '../repository.ts';
import { decideRetention } from './retention.ts';
import type { Survey } from './survey.ts';

type Retained = Pick<Repository, 'survey' | 'describeTrashed' | 'removeRestorePoint' | 'readTime'>;

const pointOf = (sealed: SealedRestorePoint): RetentionPoint => {
  const { restorePointId, manifest, flags } = sealed;
  const { takenAt, nominalTime, sealedAt } = manifest;
  return { restorePointId, takenAt, nominalTime, sealedAt, state: stateOf(sealed), ...flags };
};

/**
 * Decides about every restore point of the lineages. Said again after a part of it was done: the rest is done, and the
 * decisions are of what was left; what may have been removed before lies in the trash, and is told when it is known that
 * it was tried before (`again`). What the repository refuses to remove stays, and the decision says why.
 */
export async function applyRetention(
  repository: Retained,
  of: { lineages: readonly LineagePolicy[]; dryRun: boolean; again: boolean },
): Promise<LineageRetention[]> {
  const { nowMs, doubt } = await repository.readTime();
  const survey = await repository.survey();
  const { sealed } = survey;
  const inTrash = of.again ? await describeAll(repository, survey) : [];
  const answers: LineageRetention[] = [];
  for (const { policy, vmGoneSince, ...lineage } of of.lineages) {
    const points = sealed.filter(({ manifest }) => manifest.lineage === lineage.lineage).map(pointOf);
    const decisions =
      doubt === null && nowMs !== null
        ? decideRetention({ points, policy, now: new Date(nowMs).toISOString(), vmGoneSince })
        : points.toReversed().map((point) => inDoubt(point, doubt?.message ?? 'the time is not known'));
    const takenAt = new Map(points.map((point) => [point.restorePointId, point.takenAt]));
    const carried: PointDecision[] = [];
    // Oldest first: whatever ends this on the way, the newest are there.
    for (const decision of decisions.toReversed())
      carried.unshift({
        ...decision,
        takenAt: takenAt.get(decision.restorePointId)!,
        ...(await carryOut(repository, decision, { dryRun: of.dryRun, last: vmGoneSince !== null })),
      });
    const told = carried.filter(({ outcome }) => of.dryRun || outcome !== 'stays');
    answers.push({
      ...lineage,
      stays: decisions.filter(({ stays }) => stays).length,
      decisions: told,
      ...(of.again ? { trashed: signsOf(inTrash, lineage.lineage, survey) } : {}),
    });
  }
  return answers;
}

const describeAll = (repository: Retained, { trashed }: Survey): Promise<TrashedRestorePoint[]> =>
  repository.describeTrashed(trashed.map(({ restorePointId }) => restorePointId));

const signsOf = (trashed: readonly TrashedRestorePoint[], lineage: LineageId, { asOf }: Survey): RemovedSign[] =>
  trashed
    .filter(({ manifest }) => manifest.lineage === lineage)
    .map(({ restorePointId, trashedUntil }) => ({ restorePointId, trashedUntil, asOf }));

/** While it is not known what time it is, nothing is too old. */
const inDoubt = ({ restorePointId }: RetentionPoint, why: string): RetentionDecision => ({
  restorePointId,
  stays: true,
  reasons: [`nothing is removed: ${why}`],
});

type Carried = Pick<PointDecision, 'outcome' | 'trashedUntil' | 'asOf' | 'refusal'>;

async function carryOut(
  repository: Retained,
  { restorePointId, stays }: RetentionDecision,
  { dryRun, last }: { dryRun: boolean; last: boolean },
): Promise<Carried> {
  const nothing = { trashedUntil: null, asOf: null, refusal: null };
  if (stays) return { outcome: 'stays', ...nothing };
  if (dryRun) return { outcome: 'would-go', ...nothing };
  try {
    const { trashedUntil, asOf } = await repository.removeRestorePoint(restorePointId, { last });
    return { outcome: 'removed', ...nothing, trashedUntil, asOf };
  } catch (error) {
    const code = errorCodeOf(error);
    if (code === 'RESTORE_POINT_NOT_FOUND') return { outcome: 'removed', ...nothing };
    if (code !== 'RESTORE_POINT_HELD' && code !== 'LAST_RESTORE_POINT') throw error;
    return { outcome: 'refused', ...nothing, refusal: { code, message: messageOf(error) } };
  }
}

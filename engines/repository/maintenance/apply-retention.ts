/** Retention of lineages, decided at the repository and by its own time: what no rule keeps goes to the trash. */
import { errorCodeOf, messageOf } from '../../../schema/domain/errors.ts';
import type { Reason } from '../../../schema/domain/hypervisor.ts';
import type { RestorePointId } from '../../../schema/domain/ids.ts';
import type {
  LineagePolicy,
  LineageRetention,
  PointDecision,
  SealedRestorePoint,
} from '../../../schema/domain/maintenance-sessions.ts';
import { stateOf } from '../../../schema/domain/maintenance-sessions.ts';
import type { RetentionDecision, RetentionPoint, RetentionQuestion } from '../../../schema/domain/retention.ts';
import type { Repository } from '../repository.ts';
import type { TimeReading } from './repository-time.ts';
import { decideRetention, doubtOfDates } from './retention.ts';
import type { Survey } from './survey.ts';
import type { TrashedPlace } from './trashed-places.ts';

type Retained = Pick<Repository, 'survey' | 'placeTrashed' | 'removeRestorePoint' | 'readTime'>;

const pointOf = (sealed: SealedRestorePoint): RetentionPoint => {
  const { restorePointId, manifest, flags } = sealed;
  const { takenAt, nominalTime, sealedAt } = manifest;
  return { restorePointId, takenAt, nominalTime, sealedAt, state: stateOf(sealed), ...flags };
};

/** Decisions and signs in one answer, of some 300 bytes each; a history holds them twice. The server refuses 2 MB. */
const MOST_TOLD = 500;

type Question = { lineages: readonly LineagePolicy[]; dryRun: boolean; again: boolean; mostTold?: number };
/** `mostTold`: in what is left of the answer. */
type Work = {
  repository: Retained;
  survey: Survey;
  inTrash: readonly TrashedPlace[];
  time: TimeReading;
  dryRun: boolean;
  again: boolean;
  mostTold: number;
};

/**
 * Decides about every restore point of the lineages, as many as go into one answer (`mostTold`, the oldest of a lineage
 * first): those of which there is no answer, and what follows the last one's `next`, are asked for again. Said again after
 * a part of it was done: the rest is done, and the decisions are of what was left; what may have been removed before lies
 * in the trash, and is told when it is known that it was tried before (`again`). What the repository refuses to remove
 * stays, and the decision says why.
 */
export async function applyRetention(repository: Retained, of: Question): Promise<LineageRetention[]> {
  const { lineages, dryRun, again, mostTold = MOST_TOLD } = of;
  const time = await repository.readTime();
  const survey = await repository.survey();
  const isAgain = again || lineages.some(({ after }) => after?.again);
  const inTrash = isAgain ? await placesIn(repository, survey) : [];
  const answers: LineageRetention[] = [];
  let left = mostTold;
  for (const lineage of lineages) {
    const answer = await retain({ repository, survey, inTrash, time, dryRun, again, mostTold: left }, lineage);
    answers.push(answer);
    left -= toldIn(answer);
    if (left === 0 || answer.next) break;
  }
  return answers;
}

/** A restore point that is decided about, or one of the trash. */
type Item = { takenAt: string; restorePointId: RestorePointId; decided: RetentionDecision | TrashedPlace };
type Place = Pick<Item, 'takenAt' | 'restorePointId'>;

const placeOf = ({ takenAt, restorePointId }: Place): string => `${takenAt} ${restorePointId}`;

async function retain(work: Work, lineage: LineagePolicy): Promise<LineageRetention> {
  const { policy: _policy, vmGoneSince, after, ...names } = lineage;
  const again = work.again || after?.again === true;
  const { items: all, doubt } = itemsOf(work, lineage, again);
  const items = all.filter((item) => !after || placeOf(item) > placeOf(after));
  const answer: LineageRetention = { ...names, stays: 0, decisions: [], ...(again ? { trashed: [] } : {}) };
  if (doubt && !after) answer.doubt = doubt;
  // Oldest first: whatever ends this on the way, the newest are there.
  for (const [at, { takenAt, restorePointId, decided }] of items.entries()) {
    if (at > 0 && toldIn(answer) === work.mostTold) {
      const last = items[at - 1]!;
      return { ...answer, next: { takenAt: last.takenAt, restorePointId: last.restorePointId, again } };
    }
    if ('lineage' in decided)
      answer.trashed?.push({ restorePointId, trashedUntil: decided.trashedUntil, asOf: work.survey.asOf });
    else {
      if (decided.stays) answer.stays += 1;
      const carried = await carryOut(work.repository, decided, { dryRun: work.dryRun, last: vmGoneSince !== null });
      if (work.dryRun || carried.outcome !== 'stays') answer.decisions.unshift({ ...decided, takenAt, ...carried });
    }
  }
  return answer;
}

const toldIn = ({ decisions, trashed = [] }: LineageRetention): number => decisions.length + trashed.length;

/** Oldest first. `doubt`: of the lineage alone. */
function itemsOf(
  { survey, inTrash, time: { nowMs, doubt } }: Work,
  { lineage, policy, vmGoneSince }: LineagePolicy,
  again: boolean,
): { items: Item[]; doubt: Reason | null } {
  const points = survey.sealed.filter(({ manifest }) => manifest.lineage === lineage).map(pointOf);
  const question: RetentionQuestion | null =
    doubt === null && nowMs !== null ? { points, policy, now: new Date(nowMs).toISOString(), vmGoneSince } : null;
  const decisions = question
    ? decideRetention(question)
    : points.map((point) => inDoubt(point, doubt?.message ?? 'the time is not known'));
  const takenAt = new Map(points.map((point) => [point.restorePointId, point.takenAt]));
  const items: Item[] = decisions.map((decided) => {
    const { restorePointId } = decided;
    return { restorePointId, takenAt: takenAt.get(restorePointId)!, decided };
  });
  for (const decided of again ? inTrash.filter((place) => place.lineage === lineage) : [])
    items.push({ restorePointId: decided.restorePointId, takenAt: decided.takenAt, decided });
  items.sort((a, b) => (placeOf(a) < placeOf(b) ? -1 : 1));
  return { items, doubt: question && doubtOfDates(question) };
}

/** For each part of an answer anew, so it must not read them all each time. */
const placesIn = (repository: Retained, { trashed }: Survey): Promise<TrashedPlace[]> =>
  repository.placeTrashed(trashed.map(({ restorePointId }) => restorePointId));

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

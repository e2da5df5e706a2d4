/** Where the time of a session's transfers went: the sum over its disks. */
import type { SessionWithRows } from '../schema/catalog/sessions.ts';
import {
  addStageTimes,
  noStageTimes,
  restoreStages,
  type Stage,
  stages as backupStages,
  type StageTimes,
  type StageVerdict,
  verdictOf,
} from '../schema/domain/stages.ts';

export const stageOrderOf = (kind: string): readonly Stage[] => (kind === 'restore' ? restoreStages : backupStages);

export const stagesOfSession = ({ vms }: Pick<SessionWithRows, 'vms'>): StageTimes =>
  vms
    .flatMap((vm) => vm.disks)
    .reduce<StageTimes>((sum, { stages }) => (stages ? addStageTimes(sum, stages) : sum), { ...noStageTimes });

/** Null when nothing is known of it. Shares in percent. */
export type Bottleneck = { stagesMs: StageTimes } & StageVerdict;
export function bottleneckOf(session: SessionWithRows | null): Bottleneck | null {
  if (!session) return null;
  const stagesMs = stagesOfSession(session);
  const verdict = verdictOf(stagesMs, stageOrderOf(session.kind));
  return verdict && { stagesMs, ...verdict };
}

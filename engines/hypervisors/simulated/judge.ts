/** Whether a simulated reference point still answers for a disk (invariant 11). */
import type { BaseVerdict, DiskFacts, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import type { GuestLine, SimulatedState } from './model.ts';

/** `since`: the moment from which changes count; null unless the verdict is 'changes'. */
export function judgeDisk(
  { state, guest }: { state: SimulatedState; guest: readonly GuestLine[] },
  { diskKey, identity, sizeBytes }: DiskFacts,
  base: ReferencePoint | null,
): { verdict: BaseVerdict; since: number | null } {
  const say = (use: BaseVerdict['use'], code: string, message: string, since: number | null = null) => ({
    verdict: { diskKey, use, reason: { code, message } },
    since,
  });
  if (!base) return say('compare', 'NO_BASE', 'no sealed restore point of this lineage names a reference point');
  const wanted = base.disks.find((disk) => disk.diskKey === diskKey);
  if (!wanted) return say('full', 'NEW_DISK', `disk ${diskKey} was not there before`);
  if (wanted.identity !== identity)
    return say('compare', 'DISK_REPLACED', `another disk is in the place of ${diskKey}`);
  if (wanted.sizeBytes !== sizeBytes)
    return say('compare', 'DISK_RESIZED', `disk ${diskKey} had ${wanted.sizeBytes} bytes and has ${sizeBytes}`);
  const kept = state.referencePoints.find(({ point }) => point.run === base.run);
  const lostAt = guest.findLastIndex((line) => line.kind === 'tracking-lost');
  if (!kept || lostAt >= kept.moment)
    return say('compare', 'TRACKING_LOST', `the changes since run ${base.run} are not known`);
  return say('changes', 'TRACKED', `changes since run ${base.run} are tracked`, kept.moment);
}

/** From the hypervisor's verdicts to how each disk is read. Doubt means read (invariants 1 and 11). */
import { formatBytes } from '../schema/domain/figures.ts';
import type { DiskFacts, BaseVerdict } from '../schema/domain/hypervisor.ts';
import type { BaseRestorePoint, DiskPlan, OpenedRestorePoint } from '../schema/domain/restore-point.ts';
import type { Finding } from '../schema/domain/states.ts';

export type JudgedDisk = DiskFacts & { verdict: BaseVerdict };

/** `blockSize` in bytes; a comparison needs the same one, since digests are of whole blocks. */
export function planDisk(disk: JudgedDisk, opened: OpenedRestorePoint, blockSize: number): DiskPlan {
  const { diskKey, sizeBytes, identity } = disk;
  const common = { diskKey, sizeBytes, identity, reason: disk.verdict.reason };
  if (disk.verdict.use === 'changes' && has(opened.base, disk, blockSize))
    return { ...common, mode: 'cbt', baseRestorePointId: opened.base!.restorePointId };
  if (disk.verdict.use === 'full') return { ...common, mode: 'full', baseRestorePointId: null };
  const other = [opened.compareWith, opened.base].find((point) => has(point, disk, blockSize));
  if (other) return { ...common, mode: 'comparison', baseRestorePointId: other.restorePointId };
  return { ...common, mode: 'full', baseRestorePointId: null };
}

const has = (point: BaseRestorePoint | null, disk: JudgedDisk, blockSize: number): boolean =>
  point?.disks.some((each) => each.diskKey === disk.diskKey && each.blockSize === blockSize) ?? false;

/** Tracking lost although there was a reference point to build on is a warning with its cause (invariant 12). */
export function fallbackWarnings(plans: readonly DiskPlan[], opened: OpenedRestorePoint): Finding[] {
  const tracked = new Set(opened.base?.referencePoint?.disks.map((disk) => disk.diskKey));
  return plans
    .filter((plan) => plan.mode !== 'cbt' && tracked.has(plan.diskKey))
    .map((plan) => ({
      level: 'warning',
      code: plan.reason.code,
      message: `disk ${plan.diskKey} is read by ${plan.mode}: ${plan.reason.message}`,
    }));
}

/**
 * What a disk had beyond its end of now is in no new restore point, and retention takes the old ones away: whoever
 * shrank it by mistake is told while they are there.
 */
export function shrinkWarnings(plans: readonly DiskPlan[], opened: OpenedRestorePoint): Finding[] {
  return plans.flatMap(({ diskKey, sizeBytes }): Finding[] => {
    const had = lastSizeOf(opened, diskKey);
    if (had === null || sizeBytes >= had.sizeBytes) return [];
    const message =
      `disk ${diskKey} is smaller than in its last restore point ${had.restorePointId}: ` +
      `from ${sizeWords(had.sizeBytes)} to ${sizeWords(sizeBytes)}; what was beyond is in no new restore point`;
    return [{ level: 'warning', code: 'DISK_SHRUNK', message }];
  });
}

function lastSizeOf({ compareWith, base }: OpenedRestorePoint, diskKey: DiskPlan['diskKey']) {
  for (const point of [compareWith, base]) {
    const disk = point?.disks.find((each) => each.diskKey === diskKey);
    if (disk) return { restorePointId: point!.restorePointId, sizeBytes: disk.sizeBytes };
  }
  return null;
}

const sizeWords = (bytes: number): string => `${formatBytes(bytes)} (${bytes} bytes)`;

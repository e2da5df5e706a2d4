/** Whether a reference point still answers for a disk. Doubt means read (invariant 11), and says why. */
import type { BaseVerdict, ReferencePoint } from '../../../schema/domain/hypervisor.ts';
import { parseArtifactName } from '../../../schema/domain/ids.ts';
import { type Bitmap, GRANULARITY_BYTES, type VmDisk, type VmView } from './vm-view.ts';

/**
 * `mendable`: bitmaps that do not record now, but will have everything once the bitmap of a session that did not come to
 * its end is merged into them.
 */
export function judgeDisk(
  disk: VmDisk,
  { bitmaps }: Pick<VmView, 'bitmaps'>,
  base: ReferencePoint | null,
  mendable: ReadonlySet<string>,
): BaseVerdict {
  const { diskKey, identity, sizeBytes } = disk.facts;
  const say = (use: BaseVerdict['use'], code: string, message: string): BaseVerdict => ({
    diskKey,
    use,
    reason: { code, message },
  });
  const compare = (code: string, message: string): BaseVerdict => say('compare', code, message);
  if (!base) return compare('NO_BASE', 'no sealed restore point of this lineage names a reference point');
  if (disk.untracked) return compare(disk.untracked.code, disk.untracked.message);
  const wanted = base.disks.find((one) => one.diskKey === diskKey);
  if (!wanted) return say('full', 'NEW_DISK', `disk ${diskKey} was not there, or not tracked, before`);
  if (parseArtifactName(wanted.trackingId)?.run !== base.run)
    return compare('TRACKING_LOST', `${wanted.trackingId} is no bitmap of run ${base.run}`);
  const bitmap = bitmaps.find((one) => one.name === wanted.trackingId);
  if (bitmap && bitmap.node !== disk.node)
    return compare('EXTERNAL_SNAPSHOT', `a snapshot was laid over disk ${diskKey}, or its images were exchanged`);
  if (wanted.identity !== identity) return compare('DISK_REPLACED', `another image is in the place of disk ${diskKey}`);
  if (wanted.sizeBytes !== sizeBytes)
    return compare('DISK_RESIZED', `disk ${diskKey} had ${wanted.sizeBytes} bytes and has ${sizeBytes}`);
  const doubt = bitmap ? doubtOf(bitmap, mendable) : `bitmap ${wanted.trackingId} is not there any more`;
  if (doubt !== null) return compare('TRACKING_LOST', `${doubt} on disk ${diskKey}`);
  return say('changes', 'TRACKED', `changes since run ${base.run} are tracked`);
}

function doubtOf(bitmap: Bitmap, mendable: ReadonlySet<string>): string | null {
  const { name, granularity } = bitmap;
  if (bitmap.inconsistent) return `bitmap ${name} was not closed in order (the VM was killed or its host lost power)`;
  if (granularity !== GRANULARITY_BYTES)
    return `bitmap ${name} counts in ${granularity} bytes, not ${GRANULARITY_BYTES}`;
  if (bitmap.busy) return `bitmap ${name} is in use by somebody else`;
  if (bitmap.readOnly) return `bitmap ${name} cannot be changed now`;
  return bitmap.recording || mendable.has(name) ? null : `bitmap ${name} has not recorded all the time`;
}

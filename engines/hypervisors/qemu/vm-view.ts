/** A VM's disks and dirty bitmaps at one moment, the same for a running VM and for one that is off. */
import type { DiskFacts, Reason, VmFacts } from '../../../schema/domain/hypervisor.ts';

/** A named dirty bitmap, of whomever. */
export type Bitmap = {
  name: string;
  /** Node it lies on; of a VM that is off: the image file. */
  node: string;
  recording: boolean;
  busy: boolean;
  inconsistent: boolean;
  granularity: number;
  /** Its node takes no writes now: neither does it. */
  readOnly: boolean;
};

export type VmDisk = {
  facts: DiskFacts;
  /** As in `Bitmap`. */
  node: string;
  format: string;
  /** Absolute; null where it is not known. */
  file: string | null;
  /** Why no bitmap can be kept on it; null when one can. */
  untracked: Reason | null;
};

export type VmView = Pick<VmFacts, 'power' | 'firmware' | 'notes' | 'userCheckpoints'> & {
  disks: VmDisk[];
  /** Of all nodes, also of those below the disks. */
  bitmaps: Bitmap[];
};

/** Bytes of a disk that one bit of our bitmaps stands for. */
export const GRANULARITY_BYTES = 64 * 1024;

const notTracked = (message: string): Reason => ({ code: 'NOT_TRACKED', message });

/** Why images of this format cannot be tracked, or null. `keepsBitmaps`: see `image/facts.ts`. */
export function untrackedFormat(format: string, keepsBitmaps: boolean): Reason | null {
  if (format !== 'qcow2') return notTracked(`images of format ${format} keep no dirty bitmaps`);
  return keepsBitmaps ? null : notTracked('qcow2 images of version 2 (compat 0.10) keep no dirty bitmaps');
}

/** Looks at a VM that is off: the images its configuration names, as `qemu-img` shows them. */
import { access } from 'node:fs/promises';
import type { QemuVmConfig } from '../../../schema/domain/configuration.ts';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { type DiskKey, diskKey } from '../../../schema/domain/ids.ts';
import { type ImageFacts, inspectImage } from '../image/facts.ts';
import { type Bitmap, untrackedFormat, type VmDisk, type VmView } from './vm-view.ts';

export type StoppedView = VmView & { /** Images another process holds. */ inUse: { diskKey: DiskKey; file: string }[] };

/** VM_OFF: the configuration names no images, so nothing is known of the VM. BAD_DISK: see `inspectImage`. */
export async function viewStopped(config: QemuVmConfig): Promise<StoppedView> {
  if (!config.disks?.length)
    throw new TidemarkError(
      'VM_OFF',
      `vm ${config.name} is off: nobody listens on its monitor ${config.qmp}; and the configuration names no disks of it`,
      { vmId: config.vmId, socket: config.qmp },
    );
  const view: StoppedView = {
    power: 'off',
    firmware: 'bios',
    notes: [],
    userCheckpoints: 0,
    disks: [],
    bitmaps: [],
    inUse: [],
  };
  for (const { diskKey, file, format } of config.disks) {
    const facts = await inspectImage({ diskKey, file, format, allowBacking: true, vmName: config.name });
    view.disks.push(diskOf(diskKey, file, format, facts));
    view.bitmaps.push(...bitmapsIn(file, facts));
    view.userCheckpoints = Math.max(view.userCheckpoints, facts.internalSnapshots);
    if (facts.inUse) view.inUse.push({ diskKey, file });
  }
  return view;
}

function diskOf(key: DiskKey, file: string, format: string, facts: ImageFacts): VmDisk {
  const { sizeBytes, identity } = facts;
  const common = { diskKey: key, sizeBytes, sectorBytes: 512 as const, identity, shared: false };
  return {
    facts:
      sizeBytes > 0
        ? { ...common, snapshotOk: true }
        : { ...common, snapshotOk: false, why: `image ${file} of disk ${key} is empty (0 bytes)` },
    node: file,
    format,
    file,
    untracked: untrackedFormat(format, facts.keepsBitmaps),
  };
}

const bitmapsIn = (file: string, { bitmaps }: ImageFacts): Bitmap[] =>
  bitmaps.map(({ name, granularity, flags }) => ({
    name,
    node: file,
    recording: flags.includes('auto'),
    busy: false,
    inconsistent: flags.includes('in-use'),
    granularity,
    readOnly: false,
  }));

/**
 * Bitmaps in qcow2 images of a VM that is off; an image that is gone has none. PLATFORM_BUSY: another process holds one,
 * as a VM that is starting or ending does; its bitmaps cannot be told now.
 */
export async function bitmapsInFiles(files: Iterable<string>): Promise<Bitmap[]> {
  const all: Bitmap[] = [];
  for (const file of files) {
    const isThere = await access(file).then(
      () => true,
      () => false,
    );
    if (!isThere) continue;
    const image = { diskKey: diskKey('disk'), file, format: 'qcow2' as const, allowBacking: true };
    const facts = await inspectImage(image);
    if (facts.inUse) throw new TidemarkError('PLATFORM_BUSY', `image ${file} is held by another process`, { file });
    all.push(...bitmapsIn(file, facts));
  }
  return all;
}

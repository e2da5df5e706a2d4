/** What is known of an image without reading its data: `qemu-img info` and the file system. */
import { execFile } from 'node:child_process';
import { stat } from 'node:fs/promises';
import { promisify } from 'node:util';
import type { ImageVmConfig } from '../../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { fileIdentity } from '../file-identity.ts';
import { imageLockedIn, stderrOf } from '../storage-daemon.ts';
import { formatFoundIn, wayOutOf } from './known-formats.ts';

const run = promisify(execFile);
const INFO_TIMEOUT_MS = 30_000;
const INFO_BYTES = 4 * 1024 * 1024;

export type ImageDisk = ImageVmConfig['disks'][number];
/** `vmName`: whose it is, for messages; absent where that is not known. */
type NamedDisk = ImageDisk & { vmName?: string };

export type ImageFacts = {
  /** True length: for a raw file not rounded to sectors. */
  sizeBytes: number;
  identity: string;
  isBlockDevice: boolean;
  /** Another process has it open for writing. */
  inUse: boolean;
  internalSnapshots: number;
  /** Whether the image can keep dirty bitmaps, and those it keeps. */
  keepsBitmaps: boolean;
  bitmaps: ImageBitmap[];
};

/** `flags`: `auto` = records from the next start on, `in-use` = not closed in order, not to be trusted. */
export type ImageBitmap = { name: string; granularity: number; flags: string[] };

type QemuImgInfo = {
  'virtual-size': number;
  'backing-filename'?: string;
  snapshots?: unknown[];
  'format-specific'?: { type: string; data: { compat?: string; bitmaps?: ImageBitmap[] } };
};

/**
 * BAD_DISK: there is no such file, it is not of the format named, or it is called raw and begins like an image of another
 * format. BACKING_FILE: it stands on another image and this was not allowed.
 */
export async function inspectImage(disk: NamedDisk): Promise<ImageFacts> {
  const file = await stat(disk.file, { bigint: true }).catch((error: unknown) => {
    throw badDisk(disk, `cannot be opened: ${messageOf(error)}`, error);
  });
  if (!file.isFile() && !file.isBlockDevice()) throw badDisk(disk, 'is neither a file nor a block device');
  if (disk.format === 'raw') await refuseContainer(disk);
  const { info, inUse } = await qemuImgInfo(disk, file.isBlockDevice() ? 'host_device' : 'file');
  const backing = info['backing-filename'];
  if (backing !== undefined && !disk.allowBacking)
    throw new TidemarkError('BACKING_FILE', `${nameOf(disk)} stands on ${backing}`, {
      diskKey: disk.diskKey,
      file: disk.file,
      backing,
    });
  const isRawFile = disk.format === 'raw' && file.isFile();
  return {
    sizeBytes: isRawFile ? Number(file.size) : info['virtual-size'],
    identity: fileIdentity(disk.format, disk.file, file),
    isBlockDevice: file.isBlockDevice(),
    inUse,
    internalSnapshots: info.snapshots?.length ?? 0,
    keepsBitmaps: keepsBitmaps(disk.format, info['format-specific']?.data.compat),
    bitmaps: info['format-specific']?.data.bitmaps ?? [],
  };
}

/**
 * As raw it would be backed up as its container: without its backing file, and to be restored to no disk that a VM could
 * start from. If a guest wrote these bytes into a disk that is raw, it did so to have a file of the host read.
 */
async function refuseContainer(disk: NamedDisk): Promise<void> {
  const found = await formatFoundIn(disk.file).catch((error: unknown) => {
    throw badDisk(disk, `cannot be opened: ${messageOf(error)}`, error);
  });
  if (found === null) return;
  throw badDisk(disk, `is called raw and begins like a ${found} image; ${wayOutOf(found)}`);
}

/** Only the third version of qcow2 (compat 1.1) does. */
export const keepsBitmaps = (format: string, compat: string | undefined): boolean =>
  format === 'qcow2' && compat !== '0.10';

async function qemuImgInfo(
  disk: NamedDisk,
  driver: 'file' | 'host_device',
): Promise<{ info: QemuImgInfo; inUse: boolean }> {
  try {
    return { info: await askQemuImg(disk, driver), inUse: false };
  } catch (error) {
    const said = stderrOf(error);
    // -U is good enough for facts; data is only ever read under the lock.
    if (imageLockedIn(said) !== null) return { info: await askQemuImg(disk, null), inUse: true };
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new TidemarkError('MISSING_TOOL', 'qemu-img is not installed', { tool: 'qemu-img' });
    throw badDisk(disk, `cannot be opened as ${disk.format}: ${said || messageOf(error)}`, error);
  }
}

/** The format is always named: a guest could write another one's header into a raw disk. */
async function askQemuImg(disk: ImageDisk, exclusive: 'file' | 'host_device' | null): Promise<QemuImgInfo> {
  const { file: filename, format } = disk;
  const image = { driver: exclusive, filename };
  const node = { driver: format, file: format === 'raw' ? { ...noOtherWriter, image } : image };
  const how = exclusive === null ? ['-U', '-f', format, '--', filename] : ['--', `json:${JSON.stringify(node)}`];
  const options = { timeout: INFO_TIMEOUT_MS, maxBuffer: INFO_BYTES };
  const { stdout } = await run('qemu-img', ['info', '--output=json', ...how], options);
  return JSON.parse(stdout) as QemuImgInfo;
}

/** A raw image is opened beside a running writer without a word; the filter below refuses that, as qcow2 does by itself. */
export const noOtherWriter = { driver: 'blkdebug', 'unshare-child-perms': ['write', 'resize'] };

function badDisk(disk: NamedDisk, what: string, cause?: unknown): TidemarkError {
  const details = { diskKey: disk.diskKey, file: disk.file };
  return new TidemarkError('BAD_DISK', `${nameOf(disk)} ${what}`, details, cause);
}

const nameOf = ({ file, diskKey, vmName }: NamedDisk): string =>
  `image ${file} of disk ${diskKey}${vmName === undefined ? '' : ` of VM ${vmName}`}`;

/**
 * Scratch space: what a running guest overwrites while its checkpoint is read is kept in one qcow2 file per disk, in the
 * folder that the host's configuration names. In the worst case such a file grows to the size of its disk.
 */
import { execFile } from 'node:child_process';
import { mkdir, readdir, rm, stat, statfs } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { diskKey, parseArtifactName, type RunKey, type SiteId } from '../../../schema/domain/ids.ts';
import { inspectImage } from '../image/facts.ts';
import { stderrOf } from '../storage-daemon.ts';

const run = promisify(execFile);

export type ScratchFolder = { folder: string; maxBytes: number };
type ScratchUse = { run: RunKey; name: string; file: string; usedBytes: number };

/** Room a disk needs at least, for a beginning: tables, and the first blocks to be overwritten. */
const MINIMUM_BYTES_PER_DISK = 1024 * 1024;
const SUFFIX = '.qcow2';
const BLOCK_BYTES = 512;

export const scratchFile = ({ folder }: ScratchFolder, name: string): string => join(folder, `${name}${SUFFIX}`);

/** SCRATCH_FULL: a checkpoint of so many disks has not even room to begin. STORAGE_ERROR. */
export async function assertRoom(scratch: ScratchFolder, site: SiteId, diskCount: number): Promise<void> {
  const { folder, maxBytes } = scratch;
  await mkdir(folder, { recursive: true }).catch((error: unknown) => {
    throw new TidemarkError('STORAGE_ERROR', `cannot make scratch folder ${folder}: ${messageOf(error)}`, {}, error);
  });
  const neededBytes = diskCount * MINIMUM_BYTES_PER_DISK;
  const usedBytes = (await scratchUse(scratch, site)).reduce((sum, one) => sum + one.usedBytes, 0);
  const { bavail, bsize } = await statfs(folder);
  const freeBytes = Math.min(maxBytes - usedBytes, bavail * bsize);
  if (freeBytes < neededBytes)
    throw new TidemarkError(
      'SCRATCH_FULL',
      `scratch folder ${folder} has room for ${Math.max(0, freeBytes)} bytes (limit ${maxBytes}, used ${usedBytes}); ${neededBytes} are needed to begin`,
      { folder, freeBytes, neededBytes, maxBytes, usedBytes },
    );
}

/** `sizeBytes` rounded up to sectors, as QEMU sees a disk. A file that is there is made anew. */
export async function createScratch(file: string, sizeBytes: number): Promise<void> {
  await rm(file, { force: true });
  const size = String(Math.ceil(sizeBytes / BLOCK_BYTES) * BLOCK_BYTES);
  await run('qemu-img', ['create', '-q', '-f', 'qcow2', '--', file, size]).catch((error: unknown) => {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new TidemarkError('MISSING_TOOL', 'qemu-img is not installed', { tool: 'qemu-img' });
    const said = stderrOf(error) || messageOf(error);
    throw new TidemarkError('STORAGE_ERROR', `cannot make scratch file ${file}: ${said}`, { file }, error);
  });
}

/** Scratch files of this site that are there now, and the bytes they take. */
export async function scratchUse({ folder }: ScratchFolder, site: SiteId): Promise<ScratchUse[]> {
  const uses: ScratchUse[] = [];
  const files = (await readdir(folder).catch(() => [])).filter((file) => file.endsWith(SUFFIX));
  for (const name of files.map((file) => file.slice(0, -SUFFIX.length))) {
    const parsed = parseArtifactName(name);
    if (parsed?.site !== site || parsed.kind !== 'flc') continue;
    const file = join(folder, `${name}${SUFFIX}`);
    const stats = await stat(file).catch(() => null);
    if (stats) uses.push({ run: parsed.run, name, file, usedBytes: stats.blocks * BLOCK_BYTES });
  }
  return uses;
}

export const scratchOf = async (scratch: ScratchFolder, site: SiteId, of: RunKey): Promise<ScratchUse[]> =>
  (await scratchUse(scratch, site)).filter(({ run }) => run === of);

/** Whether a process, as a rule a VM, writes to this scratch file now. One that is damaged or gone is written by none. */
export async function isOpenElsewhere(file: string): Promise<boolean> {
  try {
    return (await inspectImage({ diskKey: diskKey('scratch'), file, format: 'qcow2', allowBacking: true })).inUse;
  } catch (error) {
    if (errorCodeOf(error) !== 'BAD_DISK') throw error;
    return false;
  }
}

/**
 * The immutable attribute of ext4, xfs, btrfs and others, by the tools that everybody has who has such a file system.
 * Node has no ioctl. The attribute is read first: setting it anew would be a write of each inode.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const run = promisify(execFile);
const PATHS_AT_ONCE = 500;
const OUTPUT_BYTES = 4 * 1024 * 1024;

/** As `FileSystem.setImmutable`. */
export async function setImmutable(paths: readonly string[], on: boolean): Promise<boolean> {
  try {
    for (let at = 0; at < paths.length; at += PATHS_AT_ONCE) await setSome(paths.slice(at, at + PATHS_AT_ONCE), on);
    return true;
  } catch {
    return false;
  }
}

async function setSome(paths: readonly string[], on: boolean): Promise<void> {
  const { stdout } = await run('lsattr', ['-d', '--', ...paths], { maxBuffer: OUTPUT_BYTES });
  const lines = stdout.split('\n').slice(0, -1);
  if (lines.length !== paths.length) throw new Error('lsattr says something else of some files');
  const others = paths.filter((_, at) => lines[at]!.split(' ')[0]!.includes('i') !== on);
  if (others.length > 0) await run('chattr', [on ? '+i' : '-i', '--', ...others]);
}

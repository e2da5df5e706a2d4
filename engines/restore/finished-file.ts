/** Whether a file that a restore made is there under its own name. */
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { entryOf, goneError } from './files.ts';
import { imageBytesOf, virtualSizeOf } from './qcow2-daemon.ts';
import type { TargetDisk, TargetFormat } from './target-state.ts';

/** Its path. STORAGE_ERROR: it is gone, or has not the size of its disk. */
export async function finishedFile(
  folder: string,
  format: TargetFormat,
  { name, sizeBytes }: TargetDisk,
): Promise<string> {
  const file = path.join(folder, name);
  const entry = await entryOf(file);
  if (!entry) throw goneError(`restore target ${file}`, file);
  const wanted = format === 'raw' ? sizeBytes : imageBytesOf(sizeBytes);
  const found = format === 'raw' ? entry.size : await virtualSizeOf(file);
  if (entry.isFile() && found === wanted) return file;
  throw new TidemarkError(
    'STORAGE_ERROR',
    `restore target ${file} is not what was restored: a file of ${wanted} bytes was made there, not of ${found}`,
    { file },
  );
}

/** Changes to bitmaps kept between sessions: in the VM's QEMU, all in one transaction; in the images of a VM that is off. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { imageLockedIn, stderrOf } from '../storage-daemon.ts';
import { type Commands, type QmpAction } from './qmp-shapes.ts';

const run = promisify(execFile);

/** `fold`: what `from` recorded goes into `into`, which records again; `from` goes. `node`: see `Bitmap`. */
export type BitmapChange =
  { kind: 'fold'; node: string; from: string; into: string } | { kind: 'drop'; node: string; name: string };

export async function changeInVm(monitor: Commands, changes: readonly BitmapChange[]): Promise<void> {
  if (changes.length > 0) await monitor.execute('transaction', { actions: changes.flatMap(actionsOf) });
}

function actionsOf(change: BitmapChange): QmpAction[] {
  const { node } = change;
  const remove = (name: string): QmpAction => ({ type: 'block-dirty-bitmap-remove', data: { node, name } });
  if (change.kind === 'drop') return [remove(change.name)];
  const { from, into } = change;
  return [
    { type: 'block-dirty-bitmap-merge', data: { node, target: into, bitmaps: [from] } },
    { type: 'block-dirty-bitmap-enable', data: { node, name: into } },
    remove(from),
  ];
}

/** `node` of the changes is the image file. PLATFORM_BUSY: another process holds the image (its VM is starting). */
export async function changeInFiles(changes: readonly BitmapChange[]): Promise<void> {
  for (const change of changes) {
    const { node: file } = change;
    // A merge done twice is done once: what is removed only after it may be merged again.
    if (change.kind === 'fold') await qemuImgBitmap(file, ['--merge', change.from, '--enable'], change.into);
    await qemuImgBitmap(file, ['--remove'], change.kind === 'fold' ? change.from : change.name);
  }
}

async function qemuImgBitmap(file: string, operations: readonly string[], name: string): Promise<void> {
  try {
    await run('qemu-img', ['bitmap', '-f', 'qcow2', ...operations, '--', file, name]);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT')
      throw new TidemarkError('MISSING_TOOL', 'qemu-img is not installed', { tool: 'qemu-img' });
    const said = stderrOf(error) || messageOf(error);
    const code = imageLockedIn(said) === null ? 'HYPERVISOR_ERROR' : 'PLATFORM_BUSY';
    throw new TidemarkError(
      code,
      `cannot change bitmap ${name} of image ${file}: ${said}`,
      { file, bitmap: name },
      error,
    );
  }
}

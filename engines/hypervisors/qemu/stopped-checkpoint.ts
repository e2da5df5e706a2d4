/**
 * Takes a checkpoint of a VM that is off: a storage daemon holds its images, so that the VM cannot start on them, and
 * keeps their bitmaps. Nothing writes, so nothing has to be copied away.
 */
import { stat } from 'node:fs/promises';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import type { Checkpoint, CheckpointSpec, Reason } from '../../../schema/domain/hypervisor.ts';
import { inspectImage, noOtherWriter } from '../image/facts.ts';
import { startStorageDaemon } from '../storage-daemon.ts';
import { begin, bitmapActions, planRun, settle } from './checkpoint.ts';
import { configOf, type Context, daemonFolderOf, holderNode } from './context.ts';
import { CONNECTIONS_PER_DISK } from './exports.ts';
import { withHolder } from './holder.ts';
import type { Outcome, RunDisk, RunState } from './run-states.ts';
import { viewStopped } from './stopped-view.ts';

/** VM_OFF: its images are not known. IMAGE_IN_USE: something else holds one. GUEST_REQUIRED: policy `require`. */
export async function takeOfStopped(context: Context, spec: CheckpointSpec): Promise<Checkpoint> {
  const config = configOf(context, spec.vm);
  const view = await viewStopped(config);
  const inUse = view.inUse.find(({ diskKey }) => spec.disks.includes(diskKey));
  if (inUse)
    throw new TidemarkError(
      'IMAGE_IN_USE',
      `image ${inUse.file} of disk ${inUse.diskKey} is held by another process, ` +
        `though nobody listens on the monitor ${config.qmp} of vm ${config.name}`,
      { ...inUse, socket: config.qmp },
    );
  if (spec.consistency === 'require')
    throw new TidemarkError('GUEST_REQUIRED', `vm ${config.name} is off: ${notFrozen.message}`, { vmId: config.vmId });
  const state = await planRun(context, spec, view, 'daemon');
  await begin(context, state);
  const folder = daemonFolderOf(context, spec.run);
  const maxConnections = CONNECTIONS_PER_DISK * state.disks.length;
  const blockdevs = (await Promise.all(state.disks.map((disk) => nodesOf(state, disk)))).flat();
  await startStorageDaemon({ folder, blockdevs, exports: [], maxConnections });
  await assertUnchanged(state);
  const actions = bitmapActions(state);
  if (actions.length > 0) await withHolder(context, state, (monitor) => monitor.execute('transaction', { actions }));
  return await settle(context, state, stoppedOutcome(state));
}

const notFrozen: Reason = { code: 'NOT_QUIESCED', message: 'the guest of a VM that is off cannot be frozen' };

export const stoppedOutcome = ({ consistency }: RunState): Outcome => ({
  reached: 'crash',
  frozenMs: null,
  ...(consistency === 'prefer' ? { reachedWhy: notFrozen } : {}),
});

/** Bitmaps are kept only in images opened for writing; nothing else is written to them. */
async function nodesOf(state: RunState, disk: RunDisk): Promise<Record<string, unknown>[]> {
  const { index, file, format } = disk;
  const tracked = disk.bitmap !== null;
  const driver = (await stat(file!)).isBlockDevice() ? 'host_device' : 'file';
  const image = { driver, 'node-name': `file${index}`, filename: file, locking: 'on', 'read-only': !tracked };
  const lock = { ...noOtherWriter, 'node-name': `lock${index}`, image: `file${index}`, 'read-only': true };
  const below = tracked ? [image] : [image, lock];
  const top = { driver: format, 'node-name': holderNode(state, disk), file: below.at(-1)!['node-name'] };
  return [...below, { ...top, 'read-only': !tracked }];
}

/** The facts were taken before the lock: another image may have taken the place of this one in between. */
async function assertUnchanged(state: RunState): Promise<void> {
  for (const { facts, file, format } of state.disks) {
    const image = { diskKey: facts.diskKey, file: file!, format: format as 'qcow2' | 'raw', allowBacking: true };
    const now = await inspectImage(image);
    if (now.identity !== facts.identity || now.sizeBytes !== facts.sizeBytes)
      throw new TidemarkError('PLATFORM_BUSY', `image ${file} changed while it was opened`, { file });
  }
}

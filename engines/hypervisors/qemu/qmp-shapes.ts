/** What QEMU's monitor answers, as far as it is used here, and the few ways it is asked. */
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Clock, Monitor } from '../../../schema/domain/seams.ts';

/** What commands are given to: a VM's monitor, or that of a storage daemon. */
export type Commands = Pick<Monitor, 'execute'>;

export type QmpBitmap = {
  /** Absent: a bitmap of a job's own. */
  name?: string;
  recording: boolean;
  busy: boolean;
  granularity: number;
  inconsistent?: boolean;
};
export type QmpImage = {
  'virtual-size': number;
  'format-specific'?: { data: { compat?: string } };
  snapshots?: unknown[];
};
export type QmpNode = {
  'node-name': string;
  drv: string;
  ro: boolean;
  /** File name of the image; a filter has that of what it stands on. */
  file: string;
  /** `file` of the node below. */
  backing_file?: string;
  image: QmpImage;
  'dirty-bitmaps'?: QmpBitmap[];
};
export type QmpDevice = { device: string; qdev?: string; removable: boolean; inserted?: QmpNode };
export type QmpJob = { id: string; type: string; status: string };
export type QmpExport = { id: string; type: string; 'node-name': string };
export type QmpAction = { type: string; data: unknown };

/** `flat`: each image for itself, without the images below it. */
export const queryNodes = (monitor: Commands): Promise<QmpNode[]> =>
  monitor.execute<QmpNode[]>('query-named-block-nodes', { flat: true });

/** Runs a command for which "there is none" is as good as done. */
export async function executeUnlessGone(
  monitor: Commands,
  command: string,
  args: Record<string, unknown>,
  gone: RegExp,
): Promise<void> {
  await monitor.execute(command, args).catch((error: unknown) => {
    if (!refusedWith(error, gone)) throw error;
  });
}

export const refusedWith = (error: unknown, description: RegExp): boolean =>
  errorCodeOf(error) === 'HYPERVISOR_ERROR' && description.test(messageOf(error));

const POLL_MS = 20;
const SETTLE_TIMEOUT_MS = 15_000;

/** Waits for what QEMU does in its own time. PLATFORM_BUSY when it does not come to be: `what` names it. */
export async function untilTrue(clock: Clock, what: string, holds: () => Promise<boolean>): Promise<void> {
  for (const end = clock.monotonic() + SETTLE_TIMEOUT_MS; !(await holds()); await clock.sleep(POLL_MS))
    if (clock.monotonic() > end)
      throw new TidemarkError('PLATFORM_BUSY', `${what}: not within ${SETTLE_TIMEOUT_MS} ms`);
}

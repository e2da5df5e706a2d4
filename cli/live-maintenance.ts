/** The picture of a maintenance from what its workflow answers and the work on it last told. Pure. */
import type { MaintenanceProgress } from '../schema/domain/maintenance.ts';
import type { MaintenanceProgressView } from '../schema/domain/maintenance-sessions.ts';
import type { LiveDisk, LiveVm } from './output/progress.ts';
import type { WorkflowPicture } from './temporal-access.ts';

export type MaintenanceSources = { progress: MaintenanceProgressView | null; picture: WorkflowPicture | null };

const isProgress = (detail: unknown): detail is MaintenanceProgress =>
  typeof (detail as MaintenanceProgress | null)?.totalBytes === 'number';

function bars(picture: WorkflowPicture | null): LiveDisk[] {
  const told = (picture?.pending ?? []).map(({ heartbeat }) => heartbeat).filter(isProgress);
  return told
    .filter(({ totalBytes }) => totalBytes > 0)
    .map(({ step, doneBytes, totalBytes }) => ({
      diskKey: step,
      bytesDone: doneBytes,
      bytesTotal: totalBytes,
      readRateBytesPerSecond: 0,
      readBytes: 0,
      sentBytes: 0,
      waitsFor: '',
    }));
}

/** A line for each step, with what came of it, and how far the one in work is. */
export const liveSteps = ({ progress, picture }: MaintenanceSources): LiveVm[] =>
  (progress?.steps ?? []).map(({ step, state, summary }) => ({
    name: step,
    step: state,
    result: 'None',
    note: summary,
    disks: state === 'working' ? bars(picture) : [],
  }));

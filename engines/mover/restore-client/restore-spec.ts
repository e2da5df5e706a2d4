/** What a restore lane is asked, tells on the way, and answers. Bytes. */
import type { TargetEndpoint } from '../../../schema/domain/hypervisor.ts';
import type { DiskKey, RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';

export type RestoreSpec = {
  restoreId: number;
  run: RunKey;
  restorePointId: RestorePointId;
  diskKey: DiskKey;
  endpoint: TargetEndpoint;
  /** What the repository lets this machine do; hex. */
  grant?: string;
  target: TargetAccess;
  patienceMs: number;
};
export type RestoreProgress = {
  bytesDone: number;
  bytesTotal: number;
  receivedBytes: number;
  writtenBytes: number;
  waitsFor: string | null;
};
export type RestoreSummary = {
  diskKey: DiskKey;
  sizeBytes: number;
  receivedBytes: number;
  writtenBytes: number;
  windowsRestored: number;
  reconnects: number;
};

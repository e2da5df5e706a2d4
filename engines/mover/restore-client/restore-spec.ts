/** What a restore lane is asked, tells on the way, and answers. Bytes. */
import type { TargetEndpoint } from '../../../schema/domain/hypervisor.ts';
import type { DiskKey, RestorePointId, RunKey } from '../../../schema/domain/ids.ts';
import type { StageTimes } from '../../../schema/domain/stages.ts';
import type { TargetAccess } from '../../../schema/domain/restore-point.ts';

/** Which disk from where to where. `grant`: what the repository lets this machine do; hex. `grantEnd`: until when, in seconds. */
export type DiskToRestore = {
  run: RunKey;
  restorePointId: RestorePointId;
  diskKey: DiskKey;
  endpoint: TargetEndpoint;
  grant?: string;
  grantEnd?: number;
  target: TargetAccess;
};
/** `silenceMs`: a target that owes blocks and says nothing for so long counts as lost. */
export type RestoreSpec = DiskToRestore & { restoreId: number; silenceMs: number };
export type RestoreItem = { kind: 'window'; window: number };
/** The window is written, and durable once the lane says so (`LaneDurable`) or has ended the restore. */
export type WindowWritten = { receivedBytes: number; writtenBytes: number };
/**
 * A notice, `stages`: where its time went since the last one. A part may be negative: what the repository's part was is known
 * at the end of a window.
 */
export type LaneStages = { restoreId: number; stages: StageTimes };
/** A notice, `durable`. */
export type LaneDurable = { restoreId: number; windows: number[] };

export type RestoreOrder = DiskToRestore & {
  signal: AbortSignal;
  onProgress?: (progress: RestoreProgress) => void;
  /** How long the repository may stay silent before TRANSFER_FAILED; default 30 min. */
  patienceMs?: number;
  /** How long what is written to may take nothing before UNREACHABLE; default 15 min. */
  targetSilenceMs?: number;
};
export type RestoreProgress = {
  bytesDone: number;
  bytesTotal: number;
  receivedBytes: number;
  writtenBytes: number;
  waitsFor: string | null;
  /** Where its time went so far. */
  stages: StageTimes;
};
export type RestoreSummary = {
  diskKey: DiskKey;
  sizeBytes: number;
  receivedBytes: number;
  writtenBytes: number;
  windowsRestored: number;
  reconnects: number;
  stages: StageTimes;
};

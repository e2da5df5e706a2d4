/** What the pool is asked to send, and what it tells on the way. */
import type { DiskAccess } from '../../../schema/domain/hypervisor.ts';
import type { TransferAssignment } from '../../../schema/domain/restore-point.ts';
import type { StageTimes } from '../../../schema/domain/stages.ts';

/**
 * `audit`: blocks that change tracking calls unchanged, of which so many were looked at; null: there was no audit.
 * `waitsFor`: 'source', 'target', or a sentence while the target cannot be reached; null before the first block.
 */
export type TransferProgress = {
  bytesDone: number;
  bytesTotal: number;
  readBytes: number;
  sentBytes: number;
  windowsAcked: number;
  windowCount: number;
  windowOpen: boolean;
  waitsFor: string | null;
  stages: StageTimes;
  audit: { audited: number; wanted: number } | null;
};

export type TransferOrder = {
  access: DiskAccess;
  assignment: TransferAssignment;
  signal: AbortSignal;
  onProgress?(progress: TransferProgress): void;
  /** How long a target may stay silent before TRANSFER_FAILED; default 30 min. */
  patienceMs?: number;
  /** How long the disk's storage may give nothing before UNREACHABLE; default 15 min. */
  sourceSilenceMs?: number;
};

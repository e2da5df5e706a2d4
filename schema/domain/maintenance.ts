/** What the repository's maintenance is asked and answers. Bytes; times ISO 8601, UTC, repository time. */
import type { RestorePointId } from './ids.ts';
import type { Reason } from './hypervisor.ts';
import type { RestorePointState } from './retention.ts';

/** Kept beside the manifest, which never changes. */
export type RestorePointMark = {
  restorePointId: RestorePointId;
  state: Exclude<RestorePointState, 'good'>;
  why: Reason;
  since: string;
};

/** `keep`: never removed by retention. `hold`: nor by a person, until released; says why. */
export type RestorePointFlags = { keep: boolean; hold: string | null; lockedUntil: string | null };

/**
 * Refused with the reason: RESTORE_POINT_HELD (kept, held, locked), LAST_RESTORE_POINT (the newest good one of its lineage).
 * `asOf`: when that was so, by the clock of the host.
 */
export type RemovalOutcome = {
  restorePointId: RestorePointId;
  removed: boolean;
  trashedUntil: string | null;
  asOf: string;
};

/** Told while long work goes on, at most once a second. `done` and `total` in bytes. */
export type MaintenanceProgress = { step: string; doneBytes: number; totalBytes: number };

export type CollectionReport = {
  epoch: number;
  /** Why nothing was removed though something might have been: an unreadable page, a failed listing. */
  stopped: Reason | null;
  liveBytes: number;
  /** Of records that nothing needs, found in this collection, in packs that stay as they are. */
  deadBytesLeft: number;
  packsTrashed: number;
  /** For what died in them. */
  packsRewritten: number;
  /** Small ones, rewritten together. */
  packsMerged: number;
  /** Copied, for either reason. */
  rewrittenBytes: number;
  /** Packs in the trash whose grace is over, removed for good. */
  packsRemoved: number;
  removedBytes: number;
  /** Brought back, because something was missing them. */
  packsRestored: number;
  /** Left alone: a locked restore point needs something of them. */
  packsLocked: number;
};

export type CheckRequest = {
  /** `quick`: structure, Merkle roots, presence. `sums`: every stored byte, not decoded. `full`: every byte. */
  depth: 'quick' | 'sums' | 'full';
  /** All when both are null. */
  vmId: string | null;
  restorePointId: RestorePointId | null;
  /** Ends after so many bytes or so long, oldest-checked packs first; null: no bound. */
  maxBytes: number | null;
  maxMs: number | null;
};

/** One damaged record, page, pack or manifest, and whom it hits. */
export type Damage = {
  kind: 'record' | 'page' | 'pack' | 'manifest';
  /** What it is called: id and place, or the name of the file. */
  name: string;
  pack: string | null;
  offset: number | null;
  why: Reason;
  restorePoints: RestorePointId[];
};

export type CheckReport = {
  depth: CheckRequest['depth'];
  /** False: a bound ended it; the next check goes on where it was. */
  whole: boolean;
  restorePoints: number;
  packs: number;
  checkedBytes: number;
  /** Sessions write to them: they are read by the next check. */
  openPacks: number;
  damages: Damage[];
  /** Restore points that are marked damaged by now, and those whose mark was taken away because they are whole again. */
  marked: RestorePointId[];
  healed: RestorePointId[];
};

/** Repository time before and after. `reset`: false when it was right already. */
export type ClockReset = { from: string; to: string; reset: boolean };

export type RepairReport = {
  /** Packs whose sound records were copied out, or that had nothing sound in them. */
  packsSalvaged: number;
  recordsSaved: number;
  recordsLost: number;
  packsRestored: number;
  /** Restore points that cannot be restored whole, and what is missing. */
  damaged: { restorePointId: RestorePointId; missingBytes: number }[];
  whole: number;
};

/**
 * Bytes of restore points as such. Logical: of blocks that are not zero. Unique, stored: of records, as they lie in packs;
 * unique of those that nobody else needs, so what a removal gives back. What a restore point stores counts each place of a
 * block, what a VM stores each block once.
 */
export type PointStatistics = { logicalBytes: number; uniqueBytes: number; storedBytes: number };
export type RepositoryStatistics = {
  restorePoints: number;
  vms: number;
  /** What all restore points would take as raw disks, without their zeros and holes. */
  logicalBytes: number;
  /** Of distinct blocks, before and after compression. */
  deduplicatedBytes: number;
  storedBytes: number;
  /** As the last whole collection left it; null: none has run since the repository was opened. */
  deadBytes: number | null;
  trashBytes: number;
  freeBytes: number | null;
  /** Repository time, null when it was never known; why it stands still. Absent: measured by a version that did not tell. */
  time?: { at: string | null; doubt: Reason | null };
  byVm: ({ vmId: string; name: string; restorePoints: number } & PointStatistics)[];
};

/** How long restore points stay: a job's policy, what it is asked about, what it answers. Times: ISO 8601, UTC. */
import type { RestorePointId } from './ids.ts';

export const weekdays = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'] as const;
export type Weekday = (typeof weekdays)[number];

export const months = [
  'january',
  'february',
  'march',
  'april',
  'may',
  'june',
  'july',
  'august',
  'september',
  'october',
  'november',
  'december',
] as const;
export type Month = (typeof months)[number];

export const DEFAULT_MINIMUM_GOOD = 3;
/**
 * Where a policy names neither a count nor days: one weekly kept must not mean that yesterday's goes at once. Twice the
 * week that is the custom of the field, so that a holiday does not pass unnoticed.
 */
export const DEFAULT_DAYS = 14;

/** A restore point stays when any rule keeps it; null: no such rule. */
export type RetentionPolicy = {
  /** The newest good ones. */
  count: number | null;
  /** Calendar days before today. */
  days: number | null;
  /** The first of each of the newest weeks, from that weekday on; without one, the last before it. Weeks begin on Monday. */
  weekly: { keep: number; weekday: Weekday } | null;
  /** The first of each of the newest months. */
  monthly: { keep: number } | null;
  /** The first of each of the newest years, from that month on; without one, the last before it. */
  yearly: { keep: number; month: Month } | null;
  /** Good restore points that always stay; at least 1 (invariant 10). */
  minimum: number;
  /** After the VM has been gone so long, what no week, month, year or person keeps goes; null: never. */
  deletedVmDays: number | null;
  /** IANA name: what a calendar day is. */
  timeZone: string;
};

/** Suspect: an audit found that change tracking had missed something. Damaged: bytes of it are not what was sealed. */
export type RestorePointState = 'good' | 'suspect' | 'damaged';

/** A sealed restore point, as far as retention sees it. */
export type RetentionPoint = {
  restorePointId: RestorePointId;
  takenAt: string;
  /** When it was due. */
  nominalTime: string;
  sealedAt: string;
  state: RestorePointState;
  /** Never removed by retention. */
  keep: boolean;
  /** Not removed for this reason, until it is released. */
  hold: string | null;
  lockedUntil: string | null;
};

export type RetentionQuestion = {
  /** All sealed restore points of one lineage. */
  points: readonly RetentionPoint[];
  /** null: the job keeps everything. */
  policy: RetentionPolicy | null;
  /** Repository time. */
  now: string;
  /** Since when the job has not had the VM any more; null: it has it. */
  vmGoneSince: string | null;
};

/** `reasons`: each a phrase that follows "stays:" or "goes:". */
export type RetentionDecision = { restorePointId: RestorePointId; stays: boolean; reasons: string[] };

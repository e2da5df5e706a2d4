/**
 * The picture of a session from what is known of it: catalog rows, the workflow's own answer, heartbeats of pending
 * activities. Pure; any part may be missing or old.
 */
import type { SessionDisk, SessionVm, SessionWithRows } from '../schema/catalog/sessions.ts';
import type { RestoreProgressView, TransferHeartbeat, VmProgress, WaitHeartbeat } from '../schema/domain/sessions.ts';
import type { StageTimes } from '../schema/domain/stages.ts';
import type { LiveDisk, LiveVm } from './output/progress.ts';
import type { PendingActivity, WorkflowPicture } from './temporal-access.ts';

/** Activities start within milliseconds where their worker lives. */
const SLOW_START_MS = 5000;
/** Heartbeats come each 10 s at the latest. */
const SILENT_MS = 20_000;

const isWait = (detail: unknown): detail is WaitHeartbeat =>
  typeof (detail as WaitHeartbeat | null)?.reason?.message === 'string';
const isTransfer = (detail: unknown): detail is TransferHeartbeat =>
  typeof (detail as TransferHeartbeat | null)?.bytesTotal === 'number';

/** "host h1" of `host.h1.ctl`: whose workers serve a queue. */
function serverOf(queue: string | null): string {
  const [, kind, id] = /^(host|proxy|repository)\.([a-z0-9-]+)(?:\.|$)/.exec(queue ?? '') ?? [];
  return kind === undefined ? 'no worker' : `${kind} ${id}`;
}

/** Whole minutes, since a pipe gets a line at each change; nothing within the first. */
function since(durationMs: number): string {
  const minutes = Math.floor(durationMs / 60_000);
  return minutes === 0 ? '' : ` for ${minutes} min`;
}

function waitOf(activity: PendingActivity, nowMs: number): string {
  const { type, heartbeat, lastFailure, attempt } = activity;
  // A wait that has just begun anew knows less than the one before it said.
  if (isWait(heartbeat) && !(heartbeat.reason.code === 'new' && lastFailure !== null)) return heartbeat.reason.message;
  if (type === 'acquireResources' && lastFailure !== null) return lastFailure;
  if (lastFailure !== null) return `${type}: ${lastFailure}${attempt === 1 ? '' : `, try ${attempt}`}`;
  const waitedMs = activity.scheduledAt === null ? 0 : nowMs - activity.scheduledAt;
  if (activity.isStarted || waitedMs < SLOW_START_MS) return '';
  const server = serverOf(activity.queue);
  return `${server} ${server === 'no worker' ? 'takes' : 'does not take'} ${type}${since(waitedMs)}`;
}

/** What a workflow waits for, in words; empty when its activities run as they should. */
export function waitsOf(picture: WorkflowPicture | null, nowMs: number): string {
  const waits = (picture?.pending ?? []).map((activity) => waitOf(activity, nowMs)).filter((wait) => wait !== '');
  return [...new Set(waits)].join('; ');
}

type Beat = TransferHeartbeat & { silentMs: number };
function beatsOf(picture: WorkflowPicture | null, nowMs: number): Map<string, Beat> {
  const beats = new Map<string, Beat>();
  for (const { heartbeat, heartbeatAt } of picture?.pending ?? [])
    if (isTransfer(heartbeat))
      beats.set(heartbeat.disk, { ...heartbeat, silentMs: heartbeatAt === null ? 0 : nowMs - heartbeatAt });
  return beats;
}

const flowOf = (beat: Beat | undefined): { rate: number; waitsFor: string } => {
  if (beat === undefined) return { rate: 0, waitsFor: '' };
  if (beat.silentMs >= SILENT_MS) return { rate: 0, waitsFor: `its proxy, silent${since(beat.silentMs)}` };
  const { audit, bytesDone } = beat;
  if (audit && audit.audited < audit.wanted && bytesDone === 0)
    return { rate: 0, waitsFor: `its audit, ${audit.audited} of ${audit.wanted} blocks` };
  return { rate: beat.readRateBytesPerSecond, waitsFor: beat.waitsFor ?? '' };
};

type DiskState = {
  diskKey: string;
  sizeBytes: number;
  state: string;
  readBytes?: number;
  sentBytes?: number;
  stages?: StageTimes;
};

function liveDisk(
  diskKey: string,
  of: { row: SessionDisk | undefined; progress: DiskState | undefined; beat: Beat | undefined; isOver: boolean },
): LiveDisk {
  const { row, progress, beat, isOver } = of;
  const bytesTotal = beat?.bytesTotal ?? progress?.sizeBytes ?? row?.sizeBytes ?? 0;
  const isDone = progress?.state === 'done' || (isOver && row?.conservation != null);
  const { rate, waitsFor } = flowOf(beat);
  return {
    diskKey,
    bytesTotal,
    bytesDone: isDone ? bytesTotal : Math.max(beat?.bytesDone ?? 0, row?.doneBytes ?? 0),
    readBytes: Math.max(beat?.readBytes ?? 0, progress?.readBytes ?? 0, row?.readBytes ?? 0),
    sentBytes: Math.max(beat?.sentBytes ?? 0, progress?.sentBytes ?? 0, row?.sentBytes ?? 0),
    readRateBytesPerSecond: isDone ? 0 : rate,
    waitsFor: isDone ? '' : waitsFor,
    stages: beat?.stages ?? progress?.stages ?? row?.stages ?? null,
  };
}

function liveDisks(
  rows: readonly SessionDisk[],
  progress: readonly DiskState[],
  beats: Map<string, Beat>,
  isOver: boolean,
): LiveDisk[] {
  const keys = new Set([...progress, ...rows].map((disk) => disk.diskKey));
  return [...keys].sort().map((diskKey) =>
    liveDisk(diskKey, {
      row: rows.find((disk) => disk.diskKey === diskKey),
      progress: progress.find((disk) => disk.diskKey === diskKey),
      beat: beats.get(diskKey),
      isOver,
    }),
  );
}

export type VmSources = { progress: VmProgress | null; picture: WorkflowPicture | null };

export function liveVm(
  row: SessionVm & { disks: SessionDisk[] },
  { progress, picture }: VmSources,
  nowMs: number,
): LiveVm {
  const isOver = row.result !== 'None';
  const beats = isOver ? new Map<string, Beat>() : beatsOf(picture, nowMs);
  const waits = progress?.waitsFor ?? (waitsOf(picture, nowMs) || (row.waitsFor ?? ''));
  return {
    name: row.name,
    step: progress?.step ?? row.step,
    result: row.result,
    note: isOver ? (row.error?.message ?? '') : waits,
    disks: liveDisks(row.disks, isOver ? [] : (progress?.disks ?? []), beats, isOver),
  };
}

export type RestoreSources = { progress: RestoreProgressView | null; picture: WorkflowPicture | null };

/** A restore is shown as one VM that comes back. */
export function liveRestore(
  session: SessionWithRows,
  name: string,
  { progress, picture }: RestoreSources,
  nowMs: number,
): LiveVm {
  const isOver = session.state === 'Stopped';
  const rows = session.vms.flatMap((vm) => vm.disks);
  return {
    name,
    step: progress?.step ?? 'waiting',
    result: session.result,
    note: isOver ? (session.error?.message ?? '') : (progress?.waitsFor ?? waitsOf(picture, nowMs)),
    disks: liveDisks(rows, progress?.disks ?? [], beatsOf(picture, nowMs), isOver),
  };
}

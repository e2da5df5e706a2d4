/** A session for people, as it is known now or as it ended: tables of VMs and disks, findings, errors with hints. */
import type { SessionEvent } from '../../schema/catalog/events.ts';
import type { Session, SessionDisk, SessionError, SessionVm, SessionWithRows } from '../../schema/catalog/sessions.ts';
import type { AuditResult, Conservation } from '../../schema/domain/restore-point.ts';
import type { RestoredDisk } from '../../schema/domain/sessions.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { bottleneckWords, stageLine } from '../../schema/domain/stages.ts';
import { stageOrderOf, stagesOfSession } from '../session-stages.ts';
import type { MaintenanceOutcome } from '../../schema/domain/maintenance-sessions.ts';
import { renderOutcomes } from './maintenance-report.ts';
import { type Column, formatDuration, formatTime, renderTable } from './table.ts';

const SHORT_ID = 12;
const text = (value: string | null | undefined): string => value ?? '-';

export function tookOf({ startedAt, endedAt }: { startedAt: string | null; endedAt: string | null }): string {
  if (startedAt === null) return '-';
  const end = endedAt === null ? Date.now() : Date.parse(endedAt);
  return formatDuration(Math.max(0, end - Date.parse(startedAt)));
}

export const errorLines = (error: SessionError, indent = ''): string[] => [
  `${indent}error: ${error.message} (${error.code})`,
  ...(error.hint === '' ? [] : [`${indent}hint: ${error.hint}`]),
];

const vmColumns: Column<SessionVm>[] = [
  { title: 'VM', of: (vm) => vm.name },
  { title: 'HOST', of: (vm) => vm.hostId },
  { title: 'RESULT', of: (vm) => (vm.result === 'None' ? '-' : vm.result) },
  // Of what went well, the step where it ended says nothing.
  { title: 'STEP', of: (vm) => (vm.result === 'Success' || vm.result === 'Warning' ? '-' : vm.step) },
  { title: 'CONSISTENT', of: (vm) => text(vm.consistency) },
  { title: 'RESTORE POINT', of: (vm) => text(vm.restorePointId?.slice(0, SHORT_ID)) },
  { title: 'TRY', of: (vm) => String(vm.attempt), right: true },
  { title: 'TOOK', of: tookOf, right: true },
];

/** "64 blocks, 3 CHANGED": of those that change tracking called unchanged. */
export function auditText(audit: AuditResult | null): string {
  if (!audit || audit.sampled === 0) return '-';
  return `${audit.sampled} blocks${audit.mismatched === 0 ? '' : `, ${audit.mismatched} CHANGED`}`;
}

type DiskRow = SessionDisk & { vm: string };
const classes: [string, keyof Conservation][] = [
  ['UNALLOCATED', 'unallocatedBytes'],
  ['ZERO', 'zeroBytes'],
  ['FILTERED', 'filteredBytes'],
  ['UNCHANGED', 'unchangedBytes'],
  ['DEDUPLICATED', 'deduplicatedBytes'],
  ['STORED', 'storedBytes'],
];
const transferColumns: Column<DiskRow>[] = [
  { title: 'VM', of: (disk) => disk.vm },
  { title: 'DISK', of: (disk) => disk.diskKey },
  { title: 'READ BY', of: (disk) => text(disk.mode) },
  { title: 'READ', of: (disk) => formatBytes(disk.readBytes), right: true },
  { title: 'SENT', of: (disk) => formatBytes(disk.sentBytes), right: true },
  { title: 'AUDIT', of: (disk) => auditText(disk.audit) },
  { title: 'PROXY', of: (disk) => text(disk.proxyId) },
  { title: 'BOTTLENECK', of: (disk) => bottleneckWords(disk.stages) || '-' },
  { title: 'WHY', of: (disk) => text(disk.reason?.message) },
];
const conservationColumns: Column<DiskRow>[] = [
  { title: 'VM', of: (disk) => disk.vm },
  { title: 'DISK', of: (disk) => disk.diskKey },
  { title: 'SIZE', of: (disk) => formatBytes(disk.sizeBytes), right: true },
  ...classes.map(([title, key]) => ({
    title,
    of: (disk: DiskRow) => (disk.conservation === null ? '-' : formatBytes(disk.conservation[key])),
    right: true,
  })),
];

function whatOf({ kind, jobId, repositoryId }: Session): string {
  if (repositoryId !== null) return `${kind} of repository ${repositoryId}`;
  return jobId === null ? kind : `${kind} of job ${jobId}`;
}

export function sessionHead(session: Session): string[] {
  const what = whatOf(session);
  const result = session.result === 'None' ? '' : `, ${session.result}`;
  return [
    `session ${session.sessionId}: ${what}`,
    `state:   ${session.state}${result}`,
    `started: ${formatTime(session.startedAt)}, by ${session.startedBy === 'manual' ? 'hand' : session.startedBy}`,
    `ended:   ${formatTime(session.endedAt)}${session.endedAt === null ? '' : `, after ${tookOf(session)}`}`,
  ];
}

function eventLine(event: SessionEvent, names: Map<string, string>): string {
  const where = [event.vmId === undefined ? '' : (names.get(event.vmId) ?? event.vmId), event.diskKey ?? ''];
  const about = where.filter((part) => part !== '').join(' ');
  return `${formatTime(event.at)}  ${event.level.padEnd(7)}  ${about === '' ? '' : `${about}: `}${event.message}`;
}

/** A session that failed because of its VMs says what they say. */
const isTold = (error: SessionError, failed: readonly SessionVm[]): boolean =>
  failed.some((vm) => vm.error!.code === error.code && error.message.includes(vm.error!.message));

function bottleneckLine(session: SessionWithRows): string {
  const times = stagesOfSession(session);
  const line = stageLine(times, stageOrderOf(session.kind));
  return line === '' ? '' : `bottleneck: ${bottleneckWords(times)} (${line})`;
}

/** `proxyId`, `machineId`: where it is; null when nobody told. */
export type RestoredFile = Omit<RestoredDisk, 'proxyId'> & { proxyId: string | null; machineId: string | null };
const fileColumns: Column<RestoredFile>[] = [
  { title: 'DISK', of: (file) => file.diskKey },
  { title: 'MACHINE', of: (file) => text(file.machineId) },
  { title: 'PROXY', of: (file) => text(file.proxyId) },
  { title: 'SIZE', of: (file) => formatBytes(file.sizeBytes), right: true },
  { title: 'RECEIVED', of: (file) => formatBytes(file.receivedBytes), right: true },
  { title: 'WRITTEN', of: (file) => formatBytes(file.writtenBytes), right: true },
  { title: 'BOTTLENECK', of: (file) => bottleneckWords(file.stages) || '-' },
  { title: 'FILE', of: (file) => file.file },
];
const restoredColumns = vmColumns.filter(({ title }) => !['HOST', 'CONSISTENT', 'TRY'].includes(title));

export type ReportInput = {
  session: SessionWithRows;
  events: readonly SessionEvent[];
  /** What a restore has made. */
  files: readonly RestoredFile[];
  /** What the steps of a maintenance came to. */
  outcomes: readonly MaintenanceOutcome[];
  uiUrl: string;
};

/** Blocks of lines, an empty line between them. */
export function renderReport({ session, events, files, outcomes, uiUrl }: ReportInput): string {
  const disks = session.vms.flatMap((vm) => vm.disks.map((disk) => ({ ...disk, vm: vm.name })));
  const names = new Map(session.vms.map((vm) => [vm.vmId, vm.name]));
  const failed = session.vms.filter((vm) => vm.error !== null);
  // The error of a VM is an event too; here it is told once, with its hint.
  const errors = new Set([...failed.map((vm) => vm.error!.message), session.error?.message]);
  const told = events.filter((event) => event.level !== 'error' || !errors.has(event.message));
  const isBackup = session.kind === 'backup';
  const blocks = [
    sessionHead(session).join('\n'),
    session.vms.length > 0 ? renderTable(session.vms, isBackup ? vmColumns : restoredColumns) : '',
    disks.length > 0 && isBackup ? renderTable(disks, transferColumns) : '',
    bottleneckLine(session),
    disks.length > 0 && isBackup ? renderTable(disks, conservationColumns) : '',
    files.length > 0 ? renderTable(files, fileColumns) : '',
    renderOutcomes(outcomes),
    told.map((event) => eventLine(event, names)).join('\n'),
    failed.flatMap((vm) => errorLines({ ...vm.error!, message: `${vm.name}: ${vm.error!.message}` })).join('\n'),
    session.error === null || isTold(session.error, failed) ? '' : errorLines(session.error).join('\n'),
    `Temporal UI: ${uiUrl}`,
  ];
  return blocks.filter((block) => block !== '').join('\n\n');
}

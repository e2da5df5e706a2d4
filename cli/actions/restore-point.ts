/** `tidemark restore-point`: what can be restored. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import { listRestorePoints, loadRestorePoint, type RestorePointSummary } from '../../schema/catalog/restore-points.ts';
import type { Manifest, ManifestDisk, SealOutcome } from '../../schema/domain/restore-point.ts';
import { withCatalog } from '../catalog-access.ts';
import { exitCodes } from '../exit-codes.ts';
import { findRestorePoint, requireKnown, shortId } from '../find-names.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { auditText } from '../output/session-report.ts';
import { formatTime, renderTable } from '../output/table.ts';
import { printJson } from '../run-command.ts';
import type { ReadOptions } from './job.ts';

export type ListOptions = ReadOptions & {
  vm?: string;
  job?: string;
  repository?: string;
  removed?: boolean;
  limit: number;
};

/** What keeps it whatever retention says, and what was found of it. */
const signsOf = ({ suspect, damaged, keep, hold, lockedUntil }: RestorePointSummary): string =>
  [
    ...(suspect ? ['SUSPECT'] : []),
    ...(damaged ? ['DAMAGED'] : []),
    ...(keep ? ['kept'] : []),
    ...(hold === null ? [] : [`held: ${hold}`]),
    ...(lockedUntil === null ? [] : [`locked until ${formatTime(lockedUntil)}`]),
  ].join(', ');

export function list(options: ListOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const { vm, job, repository, removed = false, limit } = options;
    const filter = {
      limit,
      removed,
      ...(vm === undefined ? {} : { vmName: vm }),
      ...(job === undefined ? {} : { jobId: job }),
      ...(repository === undefined ? {} : { repositoryId: repository }),
    };
    const restorePoints = await listRestorePoints(db, filter);
    if (restorePoints.length === 0) await requireKnown(db, { VM: vm, job, repository });
    const columns = [
      { title: 'RESTORE POINT', of: (point: RestorePointSummary) => shortId(point.restorePointId) },
      { title: 'VM', of: (point: RestorePointSummary) => point.vmName },
      { title: 'TAKEN', of: (point: RestorePointSummary) => formatTime(point.takenAt) },
      { title: 'CONSISTENT', of: (point: RestorePointSummary) => point.consistency },
      { title: 'SIZE', of: (point: RestorePointSummary) => formatBytes(point.sizeBytes), right: true },
      { title: 'READ', of: (point: RestorePointSummary) => formatBytes(point.readBytes), right: true },
      { title: 'STORED', of: (point: RestorePointSummary) => formatBytes(point.storedBytes), right: true },
      { title: 'JOB', of: (point: RestorePointSummary) => point.jobId },
      { title: 'REPOSITORY', of: (point: RestorePointSummary) => point.repositoryId },
      removed
        ? { title: 'IN THE TRASH UNTIL', of: (point: RestorePointSummary) => formatTime(point.trashedUntil) }
        : { title: 'SIGNS', of: signsOf },
    ];
    if (options.json) printJson({ restorePoints });
    else console.log(restorePoints.length === 0 ? 'no restore points' : renderTable(restorePoints, columns));
    return exitCodes.ok;
  });
}

/** With its manifest. RESTORE_POINT_NOT_FOUND. */
export async function loadNamed(db: CatalogDatabase, name: string): Promise<SealOutcome> {
  const { restorePointId } = await findRestorePoint(db, name);
  return (await loadRestorePoint(db, restorePointId))!;
}

function headLines(manifest: Manifest): string[][] {
  const { reached, asked, frozenMs, why } = manifest.consistency;
  const frozen = frozenMs === null ? '' : `, frozen for ${frozenMs} ms`;
  return [
    ['VM', `${manifest.vm.name} on ${manifest.vm.hostId} (${manifest.vm.vmId})`],
    ['taken', formatTime(manifest.takenAt)],
    ['sealed', formatTime(manifest.sealedAt)],
    ['consistency', `${reached} (asked: ${asked})${frozen}${why === undefined ? '' : `: ${why.message}`}`],
    ['job', `${manifest.jobId}, session ${manifest.sessionId}`],
    ['repository', manifest.repository],
    ['built on', manifest.baseRestorePointId ?? 'nothing: it was read in full'],
  ];
}

function signLines(point: RestorePointSummary): string[][] {
  const { suspect, damaged, markReason, keep, hold, lockedUntil } = point;
  const why = markReason === null ? '' : `: ${markReason}`;
  const audit = 'an audit found a block that change tracking had missed';
  return [
    ['suspect', suspect ? `YES: ${markReason ?? audit}` : 'no'],
    ['damaged', damaged ? `YES${why}` : 'no'],
    ...(keep ? [['kept', 'yes: retention never removes it']] : []),
    ...(hold === null ? [] : [['held', hold]]),
    ...(lockedUntil === null ? [] : [['locked', `until ${formatTime(lockedUntil)}`]]),
  ];
}

function showPoint({ restorePointId, manifest }: SealOutcome, point: RestorePointSummary): void {
  console.log(`restore point ${restorePointId}`);
  for (const [name, value] of [...headLines(manifest), ...signLines(point)])
    console.log(`  ${`${name}:`.padEnd(13)}${value}`);
  const bytes = (title: string, of: (disk: ManifestDisk) => number) => ({
    title,
    of: (disk: ManifestDisk) => formatBytes(of(disk)),
    right: true,
  });
  const columns = [
    { title: 'DISK', of: (disk: ManifestDisk) => disk.diskKey },
    { title: 'READ BY', of: (disk: ManifestDisk) => disk.mode },
    bytes('SIZE', (disk) => disk.sizeBytes),
    bytes('UNALLOCATED', (disk) => disk.conservation.unallocatedBytes),
    bytes('ZERO', (disk) => disk.conservation.zeroBytes),
    bytes('FILTERED', (disk) => disk.conservation.filteredBytes),
    bytes('UNCHANGED', (disk) => disk.conservation.unchangedBytes),
    bytes('DEDUPLICATED', (disk) => disk.conservation.deduplicatedBytes),
    bytes('STORED', (disk) => disk.conservation.storedBytes),
    { title: 'AUDIT', of: (disk: ManifestDisk) => auditText(disk.audit) },
    { title: 'WHY', of: (disk: ManifestDisk) => disk.reason.message },
  ];
  console.log(`\n${renderTable(manifest.disks, columns)}`);
  for (const { diskKey, why } of manifest.leftOut) console.log(`left out: ${diskKey}: ${why.message}`);
  for (const { level, message } of manifest.warnings) console.log(`${level}: ${message}`);
}

export function show(name: string, options: ReadOptions): Promise<number> {
  return withCatalog(options.state, async (db) => {
    const point = await findRestorePoint(db, name);
    const sealed = (await loadRestorePoint(db, point.restorePointId))!;
    const { suspect, damaged, markReason, keep, hold, lockedUntil } = point;
    if (options.json) printJson({ ...sealed, suspect, damaged, markReason, keep, hold, lockedUntil });
    else showPoint(sealed, point);
    return exitCodes.ok;
  });
}

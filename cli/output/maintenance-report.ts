/** What the steps of a maintenance came to, for people. */
import type {
  JudgedOpenPoint,
  LineageRetention,
  MaintenanceOutcome,
  PointDecision,
} from '../../schema/domain/maintenance-sessions.ts';
import type { CheckReport, CollectionReport, Damage, RepairReport } from '../../schema/domain/maintenance.ts';
import { formatBytes } from '../../schema/domain/figures.ts';
import { renderStatistics } from './statistics-report.ts';
import { type Column, formatTime, renderTable } from './table.ts';

const SHORT_ID = 12;
export const short = (id: string): string => id.slice(0, SHORT_ID);
/** "title: value" lines below a head. */
export const listed = (head: string, lines: readonly (readonly [string, string])[]): string =>
  [head, ...lines.map(([name, value]) => `  ${`${name}:`.padEnd(24)} ${value}`)].join('\n');

type DecisionRow = PointDecision & { vmName: string; jobId: string };
const outcomeWords = { stays: 'stays', 'would-go': 'would go', removed: 'goes', refused: 'REFUSED' } as const;
const decisionColumns: Column<DecisionRow>[] = [
  { title: 'VM', of: (row) => row.vmName },
  { title: 'JOB', of: (row) => row.jobId },
  { title: 'RESTORE POINT', of: (row) => short(row.restorePointId) },
  { title: 'TAKEN', of: (row) => formatTime(row.takenAt) },
  { title: 'DECISION', of: (row) => outcomeWords[row.outcome] },
  { title: 'WHY', of: (row) => row.refusal?.message ?? row.reasons.join('; ') },
];

function retention(lineages: readonly LineageRetention[], dryRun: boolean): string {
  const rows = lineages.flatMap(({ vmName, jobId, decisions }) =>
    decisions.map((decision) => ({ ...decision, vmName, jobId })),
  );
  const stays = lineages.reduce((sum, lineage) => sum + lineage.stays, 0);
  const goes = rows.filter(({ outcome }) => outcome === 'would-go' || outcome === 'removed').length;
  const head = `retention: ${goes} ${dryRun ? 'would go' : 'went to the trash'}, ${stays} stay`;
  return rows.length === 0 ? head : `${head}\n\n${renderTable(rows, decisionColumns)}`;
}

const collection = (report: CollectionReport): string =>
  listed(`collection${report.stopped ? `: STOPPED, nothing was removed: ${report.stopped.message}` : ''}`, [
    ['living', formatBytes(report.liveBytes)],
    ['dead, left in its packs', formatBytes(report.deadBytesLeft)],
    ['packs to the trash', String(report.packsTrashed)],
    ['packs rewritten', String(report.packsRewritten)],
    ...(report.packsMerged > 0 ? [['small packs merged', String(report.packsMerged)] as const] : []),
    ['living bytes copied', formatBytes(report.rewrittenBytes)],
    ['packs removed for good', `${report.packsRemoved}, ${formatBytes(report.removedBytes)}`],
    ...(report.packsRestored > 0 ? [['packs brought back', String(report.packsRestored)] as const] : []),
    ...(report.packsLocked > 0 ? [['packs locked', String(report.packsLocked)] as const] : []),
  ]);

const damageColumns: Column<Damage>[] = [
  { title: 'DAMAGED', of: (damage) => damage.kind },
  // Its place has columns of its own.
  { title: 'WHAT', of: (damage) => damage.name.replace(/ in pack .*/, '') },
  { title: 'PACK', of: (damage) => damage.pack ?? '-' },
  { title: 'AT', of: (damage) => (damage.offset === null ? '-' : String(damage.offset)), right: true },
  { title: 'RESTORE POINTS', of: (damage) => damage.restorePoints.map(short).join(', ') || 'none' },
  { title: 'WHY', of: (damage) => damage.why.message },
];

export function renderCheck(report: CheckReport, damageCount: number): string {
  const { depth, whole, restorePoints, packs, checkedBytes, openPacks, damages, marked, healed } = report;
  const found = damageCount === 0 ? 'no damage' : `${damageCount} DAMAGED`;
  const head = listed(`check (${depth}): ${found}`, [
    ['restore points', String(restorePoints)],
    ['packs', String(packs)],
    ['read', formatBytes(checkedBytes)],
    ...(openPacks > 0 ? [['being written', `${openPacks} packs, which the next check reads`] as const] : []),
    ['looked at all', whole ? 'yes' : 'no: the next check goes on from there'],
    ...(marked.length > 0 ? [['cannot be restored whole', marked.map(short).join(', ')] as const] : []),
    ...(healed.length > 0 ? [['whole again', healed.map(short).join(', ')] as const] : []),
  ]);
  const more = damageCount > damages.length ? `\n... ${damageCount - damages.length} more` : '';
  return damages.length === 0 ? head : `${head}\n\n${renderTable(damages, damageColumns)}${more}`;
}

export function renderRepair(report: RepairReport, dryRun: boolean): string {
  const { packsSalvaged, recordsSaved, recordsLost, packsRestored, damaged, whole } = report;
  const head = listed(`repair${dryRun ? ' (dry run)' : ''}`, [
    ['damaged packs', String(packsSalvaged)],
    [dryRun ? 'records to be saved' : 'records saved', String(recordsSaved)],
    ['records lost', String(recordsLost)],
    ['packs brought back', String(packsRestored)],
    ['whole restore points', String(whole)],
  ]);
  const columns: Column<RepairReport['damaged'][number]>[] = [
    { title: 'CANNOT BE RESTORED WHOLE', of: (point) => short(point.restorePointId) },
    { title: 'MISSING', of: (point) => formatBytes(point.missingBytes), right: true },
  ];
  return damaged.length === 0 ? head : `${head}\n\n${renderTable(damaged, columns)}`;
}

const writerWords = { open: 'its session', none: 'nobody', unknown: 'nobody can say' } as const;
const openColumns: Column<JudgedOpenPoint>[] = [
  { title: 'RESTORE POINT', of: (point) => short(point.restorePointId) },
  { title: 'VM', of: (point) => point.vmName },
  { title: 'RUN', of: (point) => point.run },
  { title: 'WRITTEN LAST', of: (point) => formatTime(point.lastWriteAt) },
  { title: 'WRITTEN BY', of: (point) => writerWords[point.writer] },
];

function openPoints(points: readonly JudgedOpenPoint[], aborted: string | null): string {
  const head = aborted === null ? '' : `restore point ${short(aborted)} was aborted\n`;
  return `${head}open restore points: ${points.length}${points.length === 0 ? '' : `\n\n${renderTable(points, openColumns)}`}`;
}

function rendered(outcome: Exclude<MaintenanceOutcome, { step: 'retention' }>): string {
  switch (outcome.step) {
    case 'import': {
      const { restorePoints, trashed, added, changed, removed, sessionsAdded } = outcome.counts;
      const inTrash = trashed > 0 ? `, and ${trashed} in the trash` : '';
      const rows = `${added} added, ${changed} changed, ${removed} taken out`;
      return `catalog: the repository has ${restorePoints} restore points${inTrash}: ${rows}; ${sessionsAdded} sessions added`;
    }
    case 'collection':
      return collection(outcome.report);
    case 'check':
      return renderCheck(outcome.report, outcome.damageCount);
    case 'repair':
      return renderRepair(outcome.report, outcome.dryRun);
    case 'open-points':
      return openPoints(outcome.points, outcome.aborted);
    case 'reset-clock': {
      const { from, to, reset } = outcome.reset;
      if (!reset) return `repository time is right, nothing was changed: ${formatTime(to)}`;
      return `repository time was set back from ${formatTime(from)} to ${formatTime(to)}`;
    }
    case 'statistics':
  }
  return renderStatistics(outcome.statistics, outcome.space);
}

/** Blocks of lines; empty for none. What retention told in several parts is one. */
export function renderOutcomes(outcomes: readonly MaintenanceOutcome[]): string {
  const blocks: string[] = [];
  const parts = outcomes.filter((outcome) => outcome.step === 'retention');
  for (const outcome of outcomes) {
    if (outcome.step !== 'retention') blocks.push(rendered(outcome));
    else if (outcome === parts[0])
      blocks.push(
        retention(
          parts.flatMap(({ lineages }) => lineages),
          outcome.dryRun,
        ),
      );
  }
  return blocks.join('\n\n');
}

/** A VM's backup as Markdown for Temporal's UI: whoever reads nothing else must understand the run. */
import { formatBytes } from '../schema/domain/figures.ts';
import type { DiskKey, RestorePointId, RunKey } from '../schema/domain/ids.ts';
import type { SessionErrorView, VmBackupInput, VmProgress } from '../schema/domain/sessions.ts';
import { type ConsistencyReached, type Finding, type VmStep, vmSteps } from '../schema/domain/states.ts';

export type DiskState = VmProgress['disks'][number];
export type VmView = {
  input: VmBackupInput;
  run: RunKey;
  step: VmStep;
  waitsFor: string | null;
  restorePointId: RestorePointId | null;
  consistency: ConsistencyReached | null;
  disks: ReadonlyMap<DiskKey, DiskState>;
  findings: readonly Finding[];
  error: SessionErrorView | null;
};

const MAX_ROWS = 50;

/** A cell must not end the table it stands in. */
export const cell = (text: string): string => text.replaceAll('|', '\\|').replaceAll(/\s+/g, ' ').slice(0, 400);

export function table(titles: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]): string => `| ${cells.map(cell).join(' | ')} |`;
  const shown = rows.slice(0, MAX_ROWS).map(line);
  const more = rows.length > MAX_ROWS ? [``, `and ${rows.length - MAX_ROWS} more`] : [];
  return [line(titles), `|${titles.map(() => '---').join('|')}|`, ...shown, ...more];
}

export const findingLines = (findings: readonly Finding[]): string[] =>
  findings.slice(-MAX_ROWS).map(({ level, code, message }) => `- ${level} \`${code}\`: ${cell(message)}`);

function stepLine(run: VmView): string {
  const at = vmSteps.indexOf(run.step);
  const way = vmSteps.filter((step) => step !== 'undoing' && step !== 'done');
  if (run.step === 'undoing') return '**undoing** what was begun';
  return way
    .map((step) => (vmSteps.indexOf(step) < at ? `~~${step}~~` : step === run.step ? `**${step}**` : step))
    .join(' → ');
}

const diskRow = (disk: DiskState): string[] => [
  disk.diskKey,
  disk.state,
  disk.mode,
  disk.reason.message,
  disk.proxyId ?? '-',
  formatBytes(disk.sizeBytes),
  formatBytes(disk.readBytes),
  formatBytes(disk.sentBytes),
];

export function renderVm(run: VmView): string {
  const { input, error } = run;
  const lines = [
    `### VM ${cell(input.vm.name)} on host ${input.vm.vm.hostId}, try ${input.attempt}`,
    '',
    stepLine(run),
  ];
  if (run.waitsFor) lines.push('', `**${cell(run.waitsFor)}**`);
  lines.push(
    '',
    `run key \`${run.run}\`, restore point ${run.restorePointId ? `\`${run.restorePointId}\`` : 'not opened yet'}`,
  );
  if (run.consistency) lines.push('', `consistency: asked ${input.job.consistency}, reached ${run.consistency}`);
  if (run.disks.size > 0) {
    const titles = ['disk', 'state', 'read as', 'because', 'proxy', 'size', 'read', 'sent'];
    lines.push('', ...table(titles, [...run.disks.values()].map(diskRow)));
  }
  if (run.findings.length > 0) lines.push('', ...findingLines(run.findings));
  if (error) lines.push('', `**${error.code}**: ${cell(error.message)}`, '', `What to do: ${error.hint}`);
  return lines.join('\n').slice(0, 19_000);
}

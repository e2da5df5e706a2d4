/** A VM's backup as Markdown for Temporal's UI: whoever reads nothing else must understand the run. */
import { formatBytes } from '../schema/domain/figures.ts';
import type { DiskKey, RestorePointId, RunKey } from '../schema/domain/ids.ts';
import type { SessionErrorView, VmBackupInput, VmProgress } from '../schema/domain/sessions.ts';
import { type ConsistencyReached, type Finding, type VmStep, vmSteps } from '../schema/domain/states.ts';
import { stageLine } from '../schema/domain/stages.ts';
import { cell, errorLines, findingLines, page, table } from './markdown.ts';

export type DiskState = VmProgress['disks'][number];
export type VmView = {
  input: VmBackupInput;
  run: RunKey;
  step: VmStep;
  failedStep: VmStep | null;
  waitsFor: string | null;
  restorePointId: RestorePointId | null;
  consistency: ConsistencyReached | null;
  disks: ReadonlyMap<DiskKey, DiskState>;
  findings: readonly Finding[];
  error: SessionErrorView | null;
};

/** Done ~~struck through~~, the one in work **bold**. */
function stepLine({ step, failedStep }: VmView): string {
  if (failedStep) return `failed while **${failedStep}**, ${step === 'done' ? 'all undone' : 'undoing what was begun'}`;
  const at = vmSteps.indexOf(step);
  const way = vmSteps.filter((each) => each !== 'undoing' && each !== 'done');
  return way
    .map((each) => (vmSteps.indexOf(each) < at ? `~~${each}~~` : each === step ? `**${each}**` : each))
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
  stageLine(disk.stages) || '-',
];

const disksOf = (run: VmView): string[] =>
  run.disks.size === 0
    ? []
    : table(
        ['disk', 'state', 'read as', 'because', 'proxy', 'size', 'read', 'sent', 'where the time went'],
        [...run.disks.values()].map(diskRow),
      );

export function renderVm(run: VmView): string {
  const { input, error, waitsFor, consistency, restorePointId } = run;
  const point = restorePointId ? `\`${restorePointId}\`` : 'not opened yet';
  return page(
    [`### VM ${cell(input.vm.name)} on host ${input.vm.vm.hostId}, try ${input.attempt}`],
    [stepLine(run)],
    waitsFor ? [`**${cell(waitsFor)}**`] : [],
    error ? errorLines(error) : [],
    [`run key \`${run.run}\`, restore point ${point}`],
    consistency ? [`consistency: asked ${input.job.consistency}, reached ${consistency}`] : [],
    disksOf(run),
    findingLines(run.findings),
  );
}

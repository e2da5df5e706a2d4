/** One `restoreSession` while it runs: where it is, and how it is shown. */
import { formatBytes } from '../schema/domain/figures.ts';
import type { DiskKey, RunKey } from '../schema/domain/ids.ts';
import {
  addStageTimes,
  bottleneckWords,
  noStageTimes,
  restoreStages,
  stageLine,
  type StageTimes,
} from '../schema/domain/stages.ts';
import { repositoryCtlQueue } from '../schema/domain/queues.ts';
import type {
  RestoredDisk,
  RestoreProgressView,
  RestoreSessionInput,
  SessionErrorView,
  StartedRestore,
} from '../schema/domain/sessions.ts';
import type { Finding } from '../schema/domain/states.ts';
import { cell, errorLines, findingLines, page, table } from './markdown.ts';
import { Waits } from './waits.ts';
import { WatchedMachines } from './watched-machines.ts';

/** A restore has no job to say it. */
export const MACHINE_WAIT_MS = 15 * 60_000;
type DiskView = RestoreProgressView['disks'][number];

export class RestoreRun {
  readonly input: RestoreSessionInput;
  readonly started: StartedRestore;
  readonly run: RunKey;
  readonly machines: WatchedMachines;
  readonly repository: string;
  readonly waits = new Waits(() => this.show());
  readonly findings: Finding[] = [];
  readonly disks: RestoredDisk[] = [];
  error: SessionErrorView | null = null;
  #step: RestoreProgressView['step'] = 'waiting';
  readonly #views: Map<DiskKey, DiskView>;
  readonly #tell: (text: string) => void;

  constructor(input: RestoreSessionInput, started: StartedRestore, run: RunKey, tell: (text: string) => void) {
    this.input = input;
    this.started = started;
    this.run = run;
    this.#tell = tell;
    this.repository = repositoryCtlQueue(started.repositoryId);
    this.machines = new WatchedMachines(MACHINE_WAIT_MS, (text) => this.waits.tell('a machine', text));
    const views = started.disks.map(({ diskKey, sizeBytes }): DiskView => ({ diskKey, sizeBytes, state: 'waiting' }));
    this.#views = new Map(views.map((view) => [view.diskKey, view]));
    this.show();
  }

  enter(step: RestoreProgressView['step']): void {
    this.#step = step;
    this.show();
  }

  /** `stages`: where the time of a try that ended went. */
  disk(diskKey: DiskKey, state: DiskView['state'], stages?: StageTimes): void {
    const view = this.#views.get(diskKey);
    if (view) view.state = state;
    if (view && stages) view.stages = addStageTimes(view.stages ?? noStageTimes, stages);
    this.show();
  }

  stagesOf(diskKey: DiskKey): Pick<RestoredDisk, 'stages'> {
    const stages = this.#views.get(diskKey)?.stages;
    return stages ? { stages } : {};
  }

  note(finding: Finding): void {
    this.findings.push(finding);
    this.show();
  }

  progress(): RestoreProgressView {
    return { step: this.#step, waitsFor: this.waits.text, disks: [...this.#views.values()] };
  }

  show(): void {
    this.#tell(this.#render());
  }

  #render(): string {
    const { input, started, error, waits } = this;
    const views = [...this.#views.values()];
    const rows = views.map((view) => [
      view.diskKey,
      view.state,
      formatBytes(view.sizeBytes),
      stageLine(view.stages, restoreStages) || '-',
    ]);
    const all = views.reduce<StageTimes>((sum, { stages }) => addStageTimes(sum, stages ?? noStageTimes), noStageTimes);
    const flow = stageLine(all, restoreStages);
    return page(
      [`### Restore of VM ${cell(started.vmName)} into ${cell(input.folder)}: ${this.#step}`],
      waits.text ? [`**${cell(waits.text)}**`] : [],
      error ? errorLines(error) : [],
      [`restore point \`${input.restorePointId}\` of repository ${started.repositoryId}, as ${input.format}`],
      flow === '' ? [] : [`bottleneck: **${bottleneckWords(all)}** (${flow})`],
      table(['disk', 'state', 'size', 'bottleneck'], rows),
      findingLines(this.findings),
    );
  }
}

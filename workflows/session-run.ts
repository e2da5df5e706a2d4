/** One `backupSession` while it runs: what is known, and how it is shown. */
import { CancellationScope, setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { JobConfig } from '../schema/domain/configuration.ts';
import type { VmId } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type {
  BackupSessionInput,
  PlannedVm,
  SessionErrorView,
  StartedSession,
  VmBackupResult,
} from '../schema/domain/sessions.ts';
import type { Finding, SessionResult, SessionState } from '../schema/domain/states.ts';
import { say } from './say.ts';
import { errorLines, findingLines, page, table } from './markdown.ts';
import { addStageTimes, bottleneckWords, noStageTimes, stageLine, type StageTimes } from '../schema/domain/stages.ts';
import { stateAttributes } from './search-attributes.ts';

export class SessionRun {
  readonly input: BackupSessionInput;
  readonly workflowId = workflowInfo().workflowId;
  readonly warnings: Finding[] = [];
  readonly results = new Map<VmId, VmBackupResult>();
  /** Attempt of each VM in work. */
  readonly working = new Map<VmId, number>();
  /** Asks a child in work to stop gracefully. */
  readonly children = new Map<VmId, () => Promise<void>>();
  started: StartedSession | null = null;
  vms: PlannedVm[] = [];
  isStopping = false;
  #state: SessionState = 'Starting';
  #result: SessionResult = 'None';
  #error: SessionErrorView | null = null;
  #stored: Promise<void> = Promise.resolve();

  constructor(input: BackupSessionInput) {
    this.input = input;
  }

  get job(): JobConfig {
    return this.started!.job;
  }

  get nominalTime(): string {
    return this.input.nominalTime ?? workflowInfo().startTime.toISOString();
  }

  /** Children that have begun their checkpoint finish; the others skip. */
  stopGracefully(): void {
    if (this.isStopping) return;
    this.isStopping = true;
    for (const ask of this.children.values()) void ask().catch(() => undefined);
    this.enterAtOnce('Stopping');
  }

  /** The catalog has heard of it by the plan, unless the session was being stopped. */
  enterPlanned(): void {
    if (this.#state === 'Starting') this.#enter('Working');
  }

  /** States reach the catalog one after another, each before the next is entered. */
  async enter(state: SessionState): Promise<void> {
    this.enterAtOnce(state);
    await this.#stored;
  }

  /**
   * Nothing is left to stop from here on. The catalog hears of it when there is something to do, and has heard of every
   * state before.
   */
  async enterPostprocessing(hasWork: boolean): Promise<void> {
    if (hasWork) this.enterAtOnce('Postprocessing');
    this.#state = 'Postprocessing';
    await this.#stored.catch(() => undefined);
  }

  /** For handlers, which cannot wait. The catalog is told all the same, whatever is cancelled meanwhile. */
  enterAtOnce(state: SessionState): void {
    // Nothing is left to stop by then.
    if (this.#state === 'Postprocessing' || this.#state === 'Stopped') return;
    this.#enter(state);
    const { sessionId } = this.input;
    const store = (): Promise<void> =>
      CancellationScope.nonCancellable(() =>
        say('updateSession', { queue: controlQueue, summary: state })({ sessionId, state }),
      );
    this.#stored = this.#stored.then(store, store);
    this.#stored.catch(() => undefined);
  }

  #enter(state: SessionState): void {
    this.#state = state;
    upsertSearchAttributes(stateAttributes(state));
    this.show();
  }

  end(result: SessionResult, error: SessionErrorView | null): void {
    this.#state = 'Stopped';
    this.#result = result;
    this.#error = error;
    this.show();
  }

  show(): void {
    setCurrentDetails(this.#render());
  }

  #render(): string {
    const { input, vms, results } = this;
    const head = `### Job ${input.jobId}, session ${input.sessionId}: ${this.#state}`;
    const isPlanned = vms.length > 0;
    return page(
      [this.#result === 'None' ? head : `${head}, ${this.#result}`],
      this.isStopping ? ['stopping: VMs in work finish, no other is begun'] : [],
      this.#error ? errorLines(this.#error) : [],
      isPlanned ? [`${results.size} of ${vms.length} VMs done, ${this.working.size} in work`] : [],
      this.#flowLines(),
      isPlanned ? table(['VM', 'host', 'state', 'consistency', 'bottleneck', 'what to know'], this.#rows()) : [],
      findingLines(this.warnings),
    );
  }

  /** Of the VMs done. */
  #flowLines(): string[] {
    const all = [...this.results.values()].map(stagesOf).reduce(addStageTimes, noStageTimes);
    const line = stageLine(all);
    return line === '' ? [] : [`bottleneck: **${bottleneckWords(all)}** (${line})`];
  }

  /** Failed ones first, then those in work, then the others: the table is cut at its end. */
  #rows(): string[][] {
    const rank = (vm: PlannedVm): number => {
      if (this.results.get(vm.vm.vmId)?.result === 'Failed') return 0;
      return this.working.has(vm.vm.vmId) ? 1 : 2;
    };
    return [...this.vms].sort((a, b) => rank(a) - rank(b) || a.position - b.position).map((vm) => this.#row(vm));
  }

  #row({ vm, name }: PlannedVm): string[] {
    const result = this.results.get(vm.vmId);
    const attempt = this.working.get(vm.vmId);
    const state = attempt === undefined ? (result?.result ?? 'waits') : `in work, try ${attempt}`;
    const warning = result?.findings.find((finding) => finding.level === 'warning');
    const note = result?.error ? `${result.error.code}: ${result.error.message}` : (warning?.message ?? '');
    return [name, vm.hostId, state, result?.consistency ?? '', bottleneckWords(result && stagesOf(result)), note];
  }
}

const stagesOf = (result: VmBackupResult): StageTimes =>
  result.disks.map((disk) => disk.stages ?? noStageTimes).reduce<StageTimes>(addStageTimes, noStageTimes);

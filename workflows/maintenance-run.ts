/** One `repositoryMaintenance` while it runs: where it is, what was found, and how it is shown. */
import {
  CancellationScope,
  CancelledFailure,
  continueAsNew,
  patched,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import { runKeyOf, type SessionId, sessionId } from '../schema/domain/ids.ts';
import type {
  MaintenanceCursor,
  MaintenanceMemory,
  MaintenanceProgressView,
  MaintenanceResult,
  MaintenanceStep,
  RepositoryMaintenanceInput,
  StepState,
} from '../schema/domain/maintenance-sessions.ts';
import { repositoryCtlQueue, repositoryQueue } from '../schema/domain/queues.ts';
import type { SessionErrorView } from '../schema/domain/sessions.ts';
import type { Finding } from '../schema/domain/states.ts';
import { cell, errorLines, findingLines, page, table } from './markdown.ts';
import { Waits } from './waits.ts';
import { WatchedMachines } from './watched-machines.ts';

/** Nobody waits for it in the night; by day a person sees what it waits for. */
const MACHINE_WAIT_MS = 30 * 60_000;
/** Far from what the server refuses, 50 MiB: a page of a thousand restore points is about half a MiB. */
const MOST_HISTORY_BYTES = 2 * 1024 * 1024;
type StepView = MaintenanceProgressView['steps'][number];

export class MaintenanceRun {
  readonly input: RepositoryMaintenanceInput & { sessionId: SessionId };
  readonly workflowId = workflowInfo().workflowId;
  /** Of the first of the runs that go on one after another. */
  readonly startedAt: string;
  /** It goes on where another run left off. */
  readonly goesOn: boolean;
  readonly machines: WatchedMachines;
  /** Queues: short verbs, and long work. */
  readonly repository: string;
  readonly repositoryWork: string;
  readonly waits = new Waits(() => this.show());
  readonly findings: Finding[];
  error: SessionErrorView | null;
  #state: string;
  readonly #steps: StepView[];
  #cursor: MaintenanceCursor | null;

  constructor({ goingOn, ...input }: RepositoryMaintenanceInput) {
    this.goesOn = goingOn !== undefined;
    this.startedAt = goingOn?.startedAt ?? workflowInfo().startTime.toISOString();
    this.findings = goingOn?.findings ?? [];
    this.error = goingOn?.error ?? null;
    this.#cursor = goingOn?.cursor ?? null;
    this.#state = goingOn ? 'Working' : 'Starting';
    this.input = { ...input, sessionId: input.sessionId ?? sessionIdOf(this.workflowId, this.startedAt) };
    this.repository = repositoryCtlQueue(input.repositoryId);
    this.repositoryWork = repositoryQueue(input.repositoryId);
    this.#steps = goingOn?.steps ?? input.steps.map((step) => ({ step, state: 'waiting', summary: '' }));
    this.machines = new WatchedMachines(MACHINE_WAIT_MS, (text) => this.waits.tell('a machine', text));
    this.show();
  }

  enter(state: 'Working' | 'Stopped'): void {
    this.#state = state;
    this.show();
  }

  step(step: MaintenanceStep, state: StepState, summary = ''): void {
    const view = this.#steps.find((each) => each.step === step);
    if (view) Object.assign(view, { state, summary });
    this.show();
  }

  stateOf(step: MaintenanceStep): StepState {
    return this.#steps.find((each) => each.step === step)?.state ?? 'waiting';
  }

  /** Where the step was when the run before this one left off; null: it begins. Once. */
  takeCursor<Step extends MaintenanceCursor['step']>(step: Step): Extract<MaintenanceCursor, { step: Step }> | null {
    const cursor = this.#cursor;
    if (cursor?.step !== step) return null;
    this.#cursor = null;
    return cursor as Extract<MaintenanceCursor, { step: Step }>;
  }

  /**
   * Between two pages of a step: where the history has become long it goes on in a new run, behind the same lease, and
   * does not return.
   */
  async turnPage(cursor: MaintenanceCursor): Promise<void> {
    // Asked of this run; the next one would not know.
    if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('the session was stopped');
    const { historySize, continueAsNewSuggested } = workflowInfo();
    const isLong = historySize > MOST_HISTORY_BYTES || continueAsNewSuggested;
    if (!isLong || !patched('bounded-history')) return;
    const { startedAt, findings, error } = this;
    const goingOn: MaintenanceMemory = { startedAt, steps: this.#steps, findings, error, cursor };
    await continueAsNew<(input: RepositoryMaintenanceInput) => Promise<MaintenanceResult>>({ ...this.input, goingOn });
  }

  /** What was not begun will not be. */
  leaveOutTheRest(): void {
    for (const view of this.#steps) if (view.state === 'waiting') view.state = 'left-out';
    this.show();
  }

  note(...findings: readonly Finding[]): void {
    this.findings.push(...findings);
    this.show();
  }

  /** The first one is the session's; the others are told beside it. */
  fail(error: SessionErrorView): void {
    if (this.error) this.note({ level: 'warning', code: error.code, message: error.message });
    this.error ??= error;
    this.show();
  }

  progress(): MaintenanceProgressView {
    return { waitsFor: this.waits.text, steps: this.#steps };
  }

  show(): void {
    setCurrentDetails(this.#render());
  }

  #render(): string {
    const { input, error, waits } = this;
    const dry = input.dryRun ? ', which says what it would do' : '';
    return page(
      [`### Maintenance of repository ${input.repositoryId}, session ${input.sessionId}${dry}: ${this.#state}`],
      waits.text ? [`**${cell(waits.text)}**`] : [],
      error ? errorLines(error) : [],
      table(
        ['step', 'state', 'what came of it'],
        this.#steps.map(({ step, state, summary }) => [step, state, summary]),
      ),
      findingLines(this.findings),
    );
  }
}

/** "20261125-033000-k3f9": as those a person starts, the same after a reset. */
function sessionIdOf(workflowId: string, startedAt: string): SessionId {
  const time = startedAt.replaceAll(/[-:]|\..*/g, '').replace('T', '-');
  return sessionId(`${time}-${runKeyOf(workflowId).slice(0, 4)}`);
}

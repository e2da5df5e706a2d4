/** One `backupSession` while it runs: what is known, and how it is shown. */
import { CancellationScope, setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { JobConfig } from '../schema/domain/configuration.ts';
import type { VmId } from '../schema/domain/ids.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import type { BackupSessionInput, SessionErrorView, StartedSession } from '../schema/domain/sessions.ts';
import type { Finding, SessionResult, SessionState } from '../schema/domain/states.ts';
import { say } from './say.ts';
import { errorLines, findingLines, page } from './markdown.ts';
import { stateAttributes } from './search-attributes.ts';
import { VmTally } from './vm-tally.ts';

export class SessionRun {
  readonly input: BackupSessionInput;
  readonly workflowId = workflowInfo().workflowId;
  readonly warnings: Finding[] = [];
  readonly tally = new VmTally();
  /** Asks a child in work to stop gracefully. */
  readonly children = new Map<VmId, () => Promise<void>>();
  started: StartedSession | null = null;
  isStopping = false;
  #state: SessionState = 'Starting';
  #result: SessionResult = 'None';
  #error: SessionErrorView | null = null;
  #stored: Promise<void> = Promise.resolve();
  #isToBeShown = false;

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

  /** Once for all that changes at a time: when many children end together they are shown together. */
  show(): void {
    if (this.#isToBeShown) return;
    this.#isToBeShown = true;
    void Promise.resolve().then(() => {
      this.#isToBeShown = false;
      setCurrentDetails(this.#render());
    });
  }

  #render(): string {
    const { input, tally } = this;
    const head = `### Job ${input.jobId}, session ${input.sessionId}: ${this.#state}`;
    return page(
      [this.#result === 'None' ? head : `${head}, ${this.#result}`],
      this.isStopping ? ['stopping: VMs in work finish, no other is begun'] : [],
      this.#error ? errorLines(this.#error) : [],
      tally.counts(),
      tally.flow(),
      tally.table(),
      findingLines(this.warnings),
    );
  }
}

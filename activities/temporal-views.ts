/** What control activities ask of Temporal about workflows and queues; implemented where the client is. */
import type { RunKey } from '../schema/domain/ids.ts';

/** How a workflow stands, by id: its newest run. `closed`: a word for people ("terminated", "failed"). */
export type WorkflowState = { is: 'open' } | { is: 'closed'; how: string } | { is: 'not-found' };

export type WorkflowView = {
  /** UNREACHABLE when Temporal does not say: whoever asks must then take the workflow for alive. */
  stateOf(workflowId: string): Promise<WorkflowState>;
  /**
   * Which of these runs an open workflow has, by its search attribute. `witness`: an open workflow that the answer has to
   * know, so that it is not from before; null: whatever is known now. UNREACHABLE when Temporal does not say, or does not
   * know the witness.
   */
  openRuns(runs: readonly RunKey[], witness: string | null): Promise<RunKey[]>;
};

export type QueueView = {
  /** How long ago a worker of the queue gave a sign of life; null: none is known. */
  silentMs(queue: string): Promise<number | null>;
};

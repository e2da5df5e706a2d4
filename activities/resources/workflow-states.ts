/** How many workflows stand, asked by id, some at once. No answer means that it is open. */
import type { WorkflowState, WorkflowView } from '../temporal-views.ts';

const ASKED_AT_ONCE = 8;

export async function askStates(
  workflowIds: readonly string[],
  workflows: WorkflowView,
  onError: (workflowId: string, error: unknown) => void,
): Promise<Map<string, WorkflowState>> {
  const states = new Map<string, WorkflowState>();
  const next = workflowIds[Symbol.iterator]();
  const asker = async (): Promise<void> => {
    for (const workflowId of next) states.set(workflowId, await stateOf(workflowId, workflows, onError));
  };
  await Promise.all(Array.from({ length: ASKED_AT_ONCE }, asker));
  return states;
}

async function stateOf(
  workflowId: string,
  workflows: WorkflowView,
  onError: (workflowId: string, error: unknown) => void,
): Promise<WorkflowState> {
  try {
    return await workflows.stateOf(workflowId);
  } catch (error) {
    onError(workflowId, error);
    return { is: 'open' };
  }
}

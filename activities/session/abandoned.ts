/** Sessions whose workflow is closed although their row is not: terminated by hand, or known to Temporal no more. */
import type { SessionError } from '../../schema/catalog/sessions.ts';
import { errorTable } from '../../schema/domain/errors.ts';
import type { WorkflowState } from '../temporal-views.ts';

/** Why such a session is Failed; null while its workflow is open. */
export function abandonedError(workflowId: string, state: WorkflowState): SessionError | null {
  if (state.is === 'open') return null;
  if (state.is === 'not-found')
    return errorOf('STOPPED', `workflow ${workflowId} is not known to Temporal any more; the session was never closed`);
  const code = state.how === 'terminated' || state.how === 'cancelled' ? 'STOPPED' : 'BUG';
  return errorOf(code, `workflow ${workflowId} ended (${state.how}) without closing the session`);
}

const errorOf = (code: 'STOPPED' | 'BUG', message: string): SessionError => ({
  code,
  message,
  hint: errorTable[code].hint,
});

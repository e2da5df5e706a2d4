/** A session that must be the only one of its job, or of the maintenance of its repository. */
import type { CatalogDatabase } from '../../schema/catalog/connection.ts';
import {
  beginSession,
  closeAbandonedSession,
  type ExclusiveOn,
  type NewSession,
} from '../../schema/catalog/sessions.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { WorkflowView } from '../temporal-views.ts';
import { abandonedError } from './abandoned.ts';

/** ALREADY_RUNNING. Sessions whose workflow is closed are closed too, and stand in nobody's way. */
export async function beginAlone(
  session: NewSession & ExclusiveOn,
  { db, workflows, endedAt }: { db: CatalogDatabase; workflows: WorkflowView; endedAt: string },
): Promise<void> {
  const { jobId, repositoryId } = session;
  const what = jobId === null ? `of the maintenance of repository ${repositoryId}` : `of job ${jobId}`;
  for (let others = await beginSession(db, session); others.length > 0; others = await beginSession(db, session)) {
    for (const other of others) {
      const error = abandonedError(other.workflowId, await workflows.stateOf(other.workflowId));
      if (error) await closeAbandonedSession(db, other.sessionId, { endedAt, error });
      else
        throw new TidemarkError(
          'ALREADY_RUNNING',
          `session ${other.sessionId} ${what} is ${other.state} since ${other.startedAt}`,
          { sessionId: other.sessionId, ...(jobId === null ? { repositoryId } : { jobId }) },
        );
    }
  }
}

/** What the control activities ask of Temporal, over the worker's own connection. */
import { type Client, WorkflowNotFoundError } from '@temporalio/client';
import { defineSearchAttributeKey } from '@temporalio/common';
import type { WorkerSign, WorkerWatch } from '../../activities/resources/worker-watch.ts';
import type { QueueView, WorkflowState, WorkflowView } from '../../activities/temporal-views.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';
import type { RunKey } from '../../schema/domain/ids.ts';
import { searchAttributeNames } from '../../schema/domain/sessions.ts';
import type { Clock } from '../../schema/domain/seams.ts';

const CALL_LIMIT_MS = 5000;
const runKeyAttribute = defineSearchAttributeKey(searchAttributeNames.runKey, 'KEYWORD');
/** WORKER_STATUS_RUNNING: those that shut down have said so. */
const RUNNING = 1;
type QueueType = NonNullable<Parameters<Client['workflowService']['describeTaskQueue']>[0]['taskQueueType']>;
/** TASK_QUEUE_TYPE_ACTIVITY. */
const ACTIVITIES = 2 as unknown as QueueType;
/** Whatever else there is, or comes to be with newer servers, is not closed. */
const closedStates = new Set(['COMPLETED', 'FAILED', 'CANCELLED', 'TERMINATED', 'TIMED_OUT']);

const within = <T>(client: Client, call: () => Promise<T>): Promise<T> =>
  client.withDeadline(Date.now() + CALL_LIMIT_MS, call);

export const createWorkflowView = (client: Client): WorkflowView => ({
  stateOf: async (workflowId): Promise<WorkflowState> => {
    try {
      const { status } = await within(client, () => client.workflow.getHandle(workflowId).describe());
      if (!closedStates.has(status.name)) return { is: 'open' };
      return { is: 'closed', how: status.name.toLowerCase().replace('_', ' ') };
    } catch (error) {
      if (error instanceof WorkflowNotFoundError) return { is: 'not-found' };
      throw new TidemarkError(
        'UNREACHABLE',
        `Temporal does not say how workflow ${workflowId} is: ${messageOf(error)}`,
      );
    }
  },
  openRuns: (runs, witness) => openRuns(client, runs, witness),
});

/** In one query. */
const RUNS_AT_ONCE = 100;
const quoted = (text: string): string => `'${text.replaceAll("'", "''")}'`;

async function openRuns(client: Client, runs: readonly RunKey[], witness: string | null): Promise<RunKey[]> {
  const open = new Set<unknown>();
  try {
    for (let at = 0; at < runs.length; at += RUNS_AT_ONCE) {
      const some = runs
        .slice(at, at + RUNS_AT_ONCE)
        .map(quoted)
        .join(', ');
      for (const run of await runsOf(client, `${searchAttributeNames.runKey} IN (${some})`)) open.add(run);
    }
    if (witness !== null && (await runsOf(client, `WorkflowId = ${quoted(witness)}`)).length === 0)
      throw new Error(`its list does not show workflow ${witness}, which runs`);
  } catch (error) {
    throw new TidemarkError('UNREACHABLE', `Temporal does not say which runs are open: ${messageOf(error)}`);
  }
  return runs.filter((run) => open.has(run));
}

/** The run key of each open workflow that fits; undefined of one that has none. */
const runsOf = (client: Client, query: string): Promise<unknown[]> =>
  within(client, async () => {
    const found: unknown[] = [];
    for await (const { typedSearchAttributes } of client.workflow.list({
      query: `${query} AND ExecutionStatus = 'Running'`,
    }))
      found.push(typedSearchAttributes.get(runKeyAttribute));
    return found;
  });

/** What all workers of the namespace told of themselves last. */
export async function listWorkerSigns(client: Client): Promise<WorkerSign[]> {
  const { namespace } = client.options;
  const signs: WorkerSign[] = [];
  let nextPageToken: Uint8Array | null = null;
  do {
    const request: Parameters<typeof client.workflowService.listWorkers>[0] = { namespace, nextPageToken };
    const page = await within(client, () => client.workflowService.listWorkers(request));
    for (const { workerHeartbeat: beat } of page.workersInfo) {
      if (!beat?.workerInstanceKey || !beat.taskQueue || (beat.status as number) !== RUNNING) continue;
      const { seconds, nanos } = beat.heartbeatTime ?? {};
      signs.push({ instance: beat.workerInstanceKey, queue: beat.taskQueue, sign: `${String(seconds)} ${nanos}` });
    }
    nextPageToken = page.nextPageToken;
  } while (nextPageToken && nextPageToken.length > 0);
  return signs;
}

/** From the workers' own signs; where none was seen yet, from when the queue was last polled. */
export const createQueueView = (client: Client, watch: WorkerWatch, clock: Clock): QueueView => ({
  silentMs: async (queue) => watch.silentMs(queue, clock.monotonic()) ?? (await pollAgeMs(client, queue, clock)),
});

async function pollAgeMs(client: Client, queue: string, clock: Clock): Promise<number | null> {
  const { namespace } = client.options;
  const { pollers } = await within(client, () =>
    client.workflowService.describeTaskQueue({ namespace, taskQueue: { name: queue }, taskQueueType: ACTIVITIES }),
  );
  const times = (pollers ?? []).map(({ lastAccessTime: at }) => Number(at?.seconds ?? 0) * 1000);
  return times.length === 0 ? null : Math.max(0, clock.now() - Math.max(...times));
}

/** Starts sessions: their workflows, with the names and words by which people find them in Temporal's UI. */
import { randomBytes } from 'node:crypto';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { defineSearchAttributeKey, TypedSearchAttributes, type SearchAttributePair } from '@temporalio/common';
import type { JobConfig } from '../schema/domain/configuration.ts';
import { type SessionId, sessionId } from '../schema/domain/ids.ts';
import {
  type ChangedRestorePoint,
  maintenanceWorkflowId,
  type RepositoryMaintenanceInput,
  type RestorePointChangeInput,
} from '../schema/domain/maintenance-sessions.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import {
  type BackupSessionInput,
  backupSessionWorkflowId,
  type RestoreSessionInput,
  restoreSessionWorkflowId,
  searchAttributeNames,
  type StartedRestore,
  workflowTypes,
} from '../schema/domain/sessions.ts';
import { soon } from './temporal-access.ts';

export type StartedWorkflow = { sessionId: SessionId; workflowId: string; runId: string };

/** "20261125-071655-k3f9": when it was started (UTC), and four characters that tell apart those of one second. */
export function newSessionId(now = new Date()): SessionId {
  const time = now
    .toISOString()
    .replaceAll(/[-:]|\..*/g, '')
    .replace('T', '-');
  const digits = 'abcdefghijkmnpqrstuvwxyz23456789';
  const tail = [...randomBytes(4)].map((byte) => digits[byte % digits.length]).join('');
  return sessionId(`${time}-${tail}`);
}

const attributes = (values: Partial<Record<keyof typeof searchAttributeNames, string>>): TypedSearchAttributes =>
  new TypedSearchAttributes(
    Object.entries(values).map(([name, value]): SearchAttributePair => {
      const key = defineSearchAttributeKey(searchAttributeNames[name as keyof typeof searchAttributeNames], 'KEYWORD');
      return { key, value };
    }),
  );

/**
 * Within this a worker takes a step of the session, the replay of all steps before it included when it takes the session
 * up: some 10 ms for each try of a VM, of four. Temporal's own 10 s where they are enough, since a worker that is killed in
 * the middle of a step holds the session up for so long; 2 min is the most that Temporal grants.
 */
const taskTimeoutOf = ({ vms }: JobConfig): '10 s' | '2 min' => (vms.length > 100 ? '2 min' : '10 s');

export async function startBackup(client: Client, job: JobConfig): Promise<StartedWorkflow> {
  const id = newSessionId();
  const workflowId = backupSessionWorkflowId(job.jobId, id);
  const input: BackupSessionInput = {
    version: 1,
    sessionId: id,
    jobId: job.jobId,
    startedBy: 'manual',
    nominalTime: null,
    retryOf: null,
  };
  const handle = await soon(client, () =>
    client.workflow.start(workflowTypes.backupSession, {
      args: [input],
      workflowId,
      taskQueue: controlQueue,
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      workflowTaskTimeout: taskTimeoutOf(job),
      staticSummary: `Backup job ${job.jobId}, session ${id}`,
      staticDetails: `Started by hand. VMs: ${job.vms.length}. Repository: ${job.repositoryId}.`,
      typedSearchAttributes: attributes({ job: job.jobId, state: 'Starting', repository: job.repositoryId }),
    }),
  );
  return { sessionId: id, workflowId, runId: handle.firstExecutionRunId };
}

export type AskedMaintenance = Pick<
  RepositoryMaintenanceInput,
  'repositoryId' | 'steps' | 'check' | 'dryRun' | 'today' | 'abort'
>;

export async function startMaintenance(client: Client, asked: AskedMaintenance): Promise<StartedWorkflow> {
  const id = newSessionId();
  const { repositoryId, steps, dryRun } = asked;
  const workflowId = maintenanceWorkflowId(repositoryId, id);
  const input: RepositoryMaintenanceInput = { version: 1, sessionId: id, startedBy: 'manual', ...asked };
  const handle = await soon(client, () =>
    client.workflow.start(workflowTypes.repositoryMaintenance, {
      args: [input],
      workflowId,
      taskQueue: controlQueue,
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      staticSummary: `Maintenance of repository ${repositoryId}, session ${id}`,
      staticDetails: `Started by hand. Steps: ${steps.join(', ')}${dryRun ? ', as a dry run' : ''}.`,
      typedSearchAttributes: attributes({ state: 'Starting', repository: repositoryId }),
    }),
  );
  return { sessionId: id, workflowId, runId: handle.firstExecutionRunId };
}

/** One small change of a restore point; its workflow says what came of it. */
export async function startChange(
  client: Client,
  input: RestorePointChangeInput,
): Promise<WorkflowHandle<(of: RestorePointChangeInput) => Promise<ChangedRestorePoint>>> {
  const { repositoryId, restorePointId, change } = input;
  return await soon(client, () =>
    client.workflow.start<(of: RestorePointChangeInput) => Promise<ChangedRestorePoint>>(
      workflowTypes.restorePointChange,
      {
        args: [input],
        workflowId: `restore-point/${restorePointId}/${change.kind}-${newSessionId()}`,
        taskQueue: controlQueue,
        staticSummary: `${change.kind} of restore point ${restorePointId} in repository ${repositoryId}`,
        typedSearchAttributes: attributes({ repository: repositoryId }),
      },
    ),
  );
}

/** `plan`: what the input comes to, for the words in the UI; the session plans for itself. */
export async function startRestore(
  client: Client,
  input: RestoreSessionInput,
  plan: StartedRestore,
): Promise<StartedWorkflow> {
  const workflowId = restoreSessionWorkflowId(input.sessionId);
  const handle = await soon(client, () =>
    client.workflow.start(workflowTypes.restoreSession, {
      args: [input],
      workflowId,
      taskQueue: controlQueue,
      workflowIdReusePolicy: 'REJECT_DUPLICATE',
      staticSummary: `Restore ${plan.vmName} into ${input.folder}, session ${input.sessionId}`,
      staticDetails: `Restore point ${input.restorePointId}, as ${input.format}.`,
      typedSearchAttributes: attributes({ vm: plan.vmId, state: 'Starting', repository: plan.repositoryId }),
    }),
  );
  return { sessionId: input.sessionId, workflowId, runId: handle.firstExecutionRunId };
}

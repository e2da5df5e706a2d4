/** Typed search attributes of the workflows: what Temporal's list is filtered by. */
import { defineSearchAttributeKey, type SearchAttributePair } from '@temporalio/common';
import type { JobConfig } from '../schema/domain/configuration.ts';
import type { VmBackupInput } from '../schema/domain/sessions.ts';
import { searchAttributeNames } from '../schema/domain/sessions.ts';
import type { RepositoryId, RunKey } from '../schema/domain/ids.ts';
import type { SessionResult, SessionState } from '../schema/domain/states.ts';

const key = (name: keyof typeof searchAttributeNames) =>
  defineSearchAttributeKey(searchAttributeNames[name], 'KEYWORD');
const pair = (name: keyof typeof searchAttributeNames, value: string): SearchAttributePair => ({
  key: key(name),
  value,
});

export const stateAttributes = (state: SessionState): SearchAttributePair[] => [pair('state', state)];
export const resultAttributes = (result: SessionResult): SearchAttributePair[] => [
  pair('state', 'Stopped'),
  pair('result', result),
];

/** Those of whoever started it may lack them: a Schedule, a person in Temporal's UI. */
export const jobAttributes = ({ jobId, repositoryId }: JobConfig): SearchAttributePair[] => [
  pair('job', jobId),
  pair('repository', repositoryId),
];

export const maintenanceAttributes = (repository: RepositoryId): SearchAttributePair[] => [
  pair('repository', repository),
  pair('state', 'Starting'),
];

export const vmAttributes = ({ job, vm }: VmBackupInput, run: RunKey): SearchAttributePair[] => [
  pair('job', job.jobId),
  pair('vm', vm.vm.vmId),
  pair('repository', job.repositoryId),
  pair('runKey', run),
  pair('state', 'Working'),
];

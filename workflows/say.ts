/** How a workflow says an activity: by name, on a queue, with a summary for the UI; options from the one table. */
import { proxyActivities } from '@temporalio/workflow';
import type { Activities } from '../activities/contract.ts';
import { optionsOf } from './activity-options.ts';

export type At = { queue: string; summary?: string; machineWaitMs?: number };

const DEFAULT_MACHINE_WAIT_MS = 15 * 60_000;

/** `say('inspectVm', { queue })(input)`. */
export function say<Name extends keyof Activities>(name: Name, at: At): Activities[Name] {
  const { queue, summary, machineWaitMs = DEFAULT_MACHINE_WAIT_MS } = at;
  const options = optionsOf(name, machineWaitMs);
  return proxyActivities<Activities>({ ...options, taskQueue: queue, ...(summary ? { summary } : {}) })[name];
}

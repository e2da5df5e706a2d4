/** How a workflow says an activity: by name, on a queue, with a summary for the UI; options from the one table. */
import { proxyActivities } from '@temporalio/workflow';
import type { Activities } from '../activities/contract.ts';
import { optionsOf } from './activity-options.ts';
import { noteAsked } from './failures.ts';

export type At = { queue: string; summary?: string; machineWaitMs?: number };

const DEFAULT_MACHINE_WAIT_MS = 15 * 60_000;
/** The server refuses more than 400 bytes. */
const LONGEST_SUMMARY = 130;

/** `say('inspectVm', { queue })(input)`. */
export function say<Name extends keyof Activities>(name: Name, at: At): Activities[Name] {
  const { queue, summary = '', machineWaitMs = DEFAULT_MACHINE_WAIT_MS } = at;
  const options = { ...optionsOf(name, machineWaitMs), taskQueue: queue, ...summaryOf(summary) };
  const verb = proxyActivities<Record<string, (...input: unknown[]) => Promise<unknown>>>(options)[name]!;
  const asked = async (...input: unknown[]): Promise<unknown> => {
    try {
      return await verb(...input);
    } catch (error) {
      throw noteAsked(error, queue);
    }
  };
  return asked as Activities[Name];
}

const summaryOf = (text: string) => (text === '' ? {} : { summary: text.slice(0, LONGEST_SUMMARY) });

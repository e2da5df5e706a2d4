/** What a killed supervisor left running: found in its stack file, verified by start time, ended in reverse order. */
import { endProcess } from './process-identity.ts';
import { readStackFile, runningChildren } from './stack-file.ts';

/** Names of the children that were still running. */
export async function endLeftovers(stackFile: string): Promise<string[]> {
  const stack = readStackFile(stackFile);
  if (stack === null) return [];
  const left = runningChildren(stack);
  // Workers first, all at once: they may need the servers to end what they do.
  const isServer = (name: string): boolean => name === 'database' || name === 'temporal';
  const graceMs = 20_000;
  await Promise.all(left.filter(({ name }) => !isServer(name)).map((identity) => endProcess(identity, graceMs)));
  await Promise.all(left.filter(({ name }) => isServer(name)).map((identity) => endProcess(identity, graceMs)));
  return left.map(({ name }) => name);
}

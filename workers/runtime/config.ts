/** What a worker process is told by its environment, and what its machine runs. */
import { readFile } from 'node:fs/promises';
import { stackLayout, type StackLayout } from '../../engines/stack/layout.ts';
import type { MachineConfig } from '../../schema/domain/configuration.ts';
import { messageOf, TidemarkError } from '../../schema/domain/errors.ts';

export type TemporalAddress = { address: string; namespace: string };

/** BAD_CONFIG when the variable is not set. */
export function requiredVariable(name: string, meaning: string): string {
  const value = process.env[name];
  if (value) return value;
  throw new TidemarkError('BAD_CONFIG', `${name} does not name ${meaning}`, { variable: name });
}

export const stateLayout = (): StackLayout => stackLayout(requiredVariable('TIDEMARK_STATE', 'the state folder'));

export const temporalAddress = (): TemporalAddress => ({
  address: requiredVariable('TIDEMARK_TEMPORAL_ADDRESS', 'where Temporal listens'),
  namespace: requiredVariable('TIDEMARK_TEMPORAL_NAMESPACE', 'the namespace of the site'),
});

/** Null when nothing was applied yet. BAD_CONFIG: the file cannot be read, or is not what we write. */
export async function loadMachine({ machineFile }: StackLayout): Promise<MachineConfig | null> {
  const text = await readFile(machineFile, 'utf8').catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null;
    throw new TidemarkError('BAD_CONFIG', `cannot read ${machineFile}: ${error.message}`, { machineFile }, error);
  });
  if (text === null) return null;
  try {
    const machine = JSON.parse(text) as MachineConfig;
    for (const list of [machine.hosts, machine.proxies, machine.repositories])
      if (!Array.isArray(list)) throw new TypeError('it lacks a list of hosts, proxies or repositories');
    return machine;
  } catch (error) {
    throw new TidemarkError('BAD_CONFIG', `${machineFile} is damaged: ${messageOf(error)}`, { machineFile }, error);
  }
}

/** What a worker reads again while it runs: limits and rules, which must not interrupt anything. */
import { watchConfiguration } from '../../engines/stack/configuration-watch.ts';
import type { StackLayout } from '../../engines/stack/layout.ts';
import type { MachineConfig } from '../../schema/domain/configuration.ts';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import { loadMachine } from './config.ts';

/** Calls `apply` once, and within a second of each change of the machine's file, until the signal aborts. */
export async function followMachine(
  layout: StackLayout,
  { clock, log }: Pick<Seams, 'clock' | 'log'>,
  signal: AbortSignal,
  apply: (machine: MachineConfig) => void,
): Promise<void> {
  const read = async (): Promise<void> => {
    const machine = await loadMachine(layout);
    if (machine) apply(machine);
  };
  const onTrouble = (error: unknown): void => log.warn('cannot read limits anew', { error: messageOf(error) });
  await watchConfiguration(layout.machineFile, null, clock, signal, onTrouble, read);
}

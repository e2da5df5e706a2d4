/** The workers of a machine that is not the stack's: started, kept running, started anew when their configuration changes. */
import { mkdir } from 'node:fs/promises';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Clock, Log } from '../../schema/domain/seams.ts';
import { Child } from './child.ts';
import {
  configurationDigest,
  type ConfiguredWorker,
  configuredWorkers,
  configurationParts,
  watchConfiguration,
} from './configuration-watch.ts';
import { assertSocketPathsFit, stackLayout } from './layout.ts';
import { endStorageDaemons } from './leftovers.ts';
import type { ChildStatus } from './stack-file.ts';
import { takeStackLock } from './stack-lock.ts';
import { remoteWorkerChild } from './worker-child.ts';

export type MachineOptions = {
  stateFolder: string;
  node: string;
  /** Absolute paths of the workers' entry files. */
  workers: Record<ConfiguredWorker, string>;
  clock: Clock;
  log: Log;
  onChange: (child: ChildStatus) => void;
};

/** Until the signal aborts; then no process is left. STACK_RUNNING, BAD_CONFIG (folder too long). */
export async function runMachine(options: MachineOptions, signal: AbortSignal): Promise<void> {
  const layout = stackLayout(options.stateFolder);
  assertSocketPathsFit(layout);
  for (const folder of [layout.configFolder, layout.runFolder, layout.logFolder])
    await mkdir(folder, { recursive: true, mode: 0o700 });
  const unlock = takeStackLock(layout.lockFile);
  const { clock, log, node, workers, onChange } = options;
  const children = new Map<string, Child>();
  for (const name of configuredWorkers) {
    const spec = remoteWorkerChild(name, node, workers[name], layout);
    const child: Child = new Child(spec, layout.logFile(name), clock, () => onChange(child.status()));
    children.set(name, child);
  }
  const named = (names: readonly ConfiguredWorker[]): Child[] => names.map((name) => children.get(name)!);
  try {
    const digest = await configurationDigest(layout.machineFile);
    let applied = await configurationParts(layout.machineFile);
    for (const child of children.values()) child.start();
    await watchConfiguration(
      layout.machineFile,
      digest,
      clock,
      signal,
      (error) => log.error('the configuration of this machine cannot be followed', { error: messageOf(error) }),
      async () => {
        const wanted = await configurationParts(layout.machineFile);
        const changed = named(configuredWorkers.filter((name) => wanted[name] !== applied[name]));
        await Promise.all(changed.map((child) => child.stop()));
        applied = wanted;
        if (!signal.aborted) for (const child of changed) child.start();
      },
    );
  } finally {
    await Promise.all(named(configuredWorkers.filter((name) => name !== 'keeper')).map((child) => child.stop()));
    // The keeper outlives the workers: it thaws what they leave.
    await children.get('keeper')!.stop();
    await endStorageDaemons(layout.folder);
    unlock();
  }
}

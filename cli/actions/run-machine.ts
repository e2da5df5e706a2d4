/** `tidemark host run`: the workers of a machine that has enrolled. */
import { runMachine } from '../../engines/stack/run-machine.ts';
import { readEnrolment } from '../../engines/security/enrolment-client.ts';
import { securityLayout } from '../../engines/security/security-layout.ts';
import type { ChildStatus } from '../../engines/stack/stack-file.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import { loadMachine } from '../../workers/runtime/config.ts';
import { exitCodes } from '../exit-codes.ts';
import { layoutOf, workerEntries } from '../stack-access.ts';

function showChange({ name, state, pid, lastExit, restarts }: ChildStatus): void {
  if (state === 'ready') console.log(`${name}: ready (pid ${pid})`);
  if (state === 'waiting') console.log(`${name}: died (${lastExit}), restart ${restarts}`);
}

/** SECURITY_NOT_READY: it has not enrolled. */
export async function runHere(options: { state?: string }): Promise<number> {
  const layout = layoutOf(options.state);
  const isKnown = (await loadMachine(layout))?.security !== undefined;
  if (!isKnown && (await readEnrolment(securityLayout(layout.configFolder))) === null)
    throw new TidemarkError('SECURITY_NOT_READY', `no machine has enrolled with its state in ${layout.folder}`);
  const ending = new AbortController();
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, () => ending.abort());
  const { clock, log } = createSeams('machine');
  const workers = workerEntries();
  await runMachine(
    { stateFolder: layout.folder, node: process.execPath, workers, clock, log, onChange: showChange },
    ending.signal,
  );
  return exitCodes.ok;
}

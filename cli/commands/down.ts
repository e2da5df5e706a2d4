/** `tidemark down`: ends the stack of a folder, also one whose supervisor was killed. */
import type { Command } from 'commander';
import { endLeftovers, endStorageDaemons } from '../../engines/stack/leftovers.ts';
import { signalProcess, waitUntilGone } from '../../engines/stack/process-identity.ts';
import { isSupervisorRunning, readStackFile } from '../../engines/stack/stack-file.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { example } from '../command-options.ts';
import { exitCodes } from '../exit-codes.ts';
import { printJson, runCommand } from '../run-command.ts';
import { layoutOf, STATE_OPTION } from '../stack-access.ts';

type DownOptions = { state?: string; json?: boolean };
/** Workers, keeper and servers have 20 s each, one after another. */
const LIMIT_MS = 75_000;

async function down(options: DownOptions): Promise<number> {
  const layout = layoutOf(options.state);
  const stack = readStackFile(layout.stackFile);
  const wasRunning = stack !== null && isSupervisorRunning(stack);
  if (wasRunning) {
    if (!options.json) console.log(`stopping the stack, pid ${stack.pid}`);
    signalProcess(stack, 'SIGTERM');
    if (!(await waitUntilGone(stack, LIMIT_MS))) {
      throw new TidemarkError('UNREACHABLE', `the supervisor, pid ${stack.pid}, does not end`, { pid: stack.pid });
    }
  }
  const leftovers = await endLeftovers(layout.stackFile);
  await endStorageDaemons(layout.folder);
  if (options.json) printJson({ wasRunning, leftovers });
  else if (leftovers.length > 0) console.log(`ended what a killed stack had left running: ${leftovers.join(', ')}`);
  else console.log(wasRunning ? 'stopped' : `nothing runs in ${layout.folder}`);
  return exitCodes.ok;
}

export function register(program: Command): void {
  const command = program
    .command('down')
    .description(
      'stop the embedded stack; sessions in work go on after the next `tidemark up`, but those of images and powered-off VMs fail',
    )
    .option(...STATE_OPTION)
    .option('--json', 'print what was ended as JSON')
    .action(runCommand(down));
  example(command, 'tidemark down');
}

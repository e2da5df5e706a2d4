import type { Command } from 'commander';
import { example, parseLimit, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ReadOptions } from '../actions/job.ts';
import type { ListOptions } from '../actions/restore-point.ts';

const load = () => import('../actions/restore-point.ts');

export function register(program: Command): void {
  const point = program.command('restore-point').description('restore points: what can be restored');
  const list = point
    .command('list')
    .description('the newest restore points')
    .option('--vm <name>', 'only of this VM')
    .option('--job <job>', 'only of this job')
    .option('--limit <count>', 'at most so many', parseLimit, 50);
  withCommon(list, 'the restore points').action(
    runCommand(async (options: ListOptions) => (await load()).list(options)),
  );
  example(list, 'tidemark restore-point list --vm web');

  const show = point
    .command('show')
    .description('one restore point: its disks, how they were read, how consistent it is')
    .argument('<restore point>', 'its id, the beginning of it, or <vm>@latest');
  withCommon(show, 'the manifest').action(
    runCommand(async (name: string, options: ReadOptions) => (await load()).show(name, options)),
  );
  example(show, 'tidemark restore-point show web@latest');
}

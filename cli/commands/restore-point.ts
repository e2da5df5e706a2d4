import type { Command } from 'commander';
import { example, parseLimit, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ReadOptions } from '../actions/job.ts';
import type { RemoveOptions } from '../actions/restore-point-change.ts';
import type { ListOptions } from '../actions/restore-point.ts';

const load = () => import('../actions/restore-point.ts');

export function register(program: Command): void {
  const point = program.command('restore-point').description('restore points: what can be restored');
  const list = point
    .command('list')
    .description('the newest restore points')
    .option('--vm <name>', 'only of this VM')
    .option('--job <job>', 'only of this job')
    .option('--repository <repository>', 'only in this repository')
    .option('--removed', 'those in the trash instead, which can be brought back')
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
  registerChanges(point);
}

const POINT = ['<restore point>', 'its id, the beginning of it, or <vm>@latest'] as const;
const loadChange = () => import('../actions/restore-point-change.ts');

/** What a person says of one, beside what retention says. */
function registerChanges(point: Command): void {
  const verb = (name: 'keep' | 'unkeep' | 'release', description: string): void => {
    const command = point
      .command(name)
      .description(description)
      .argument(...POINT);
    withCommon(command, 'the restore point as it is then').action(
      runCommand(async (of: string, options: ReadOptions) => (await loadChange())[name](of, options)),
    );
    example(command, `tidemark restore-point ${name} web@latest`);
  };
  verb('keep', 'retention never removes it; a person may, after unkeep');
  verb('unkeep', 'retention says again how long it stays');
  registerHold(point);
  verb('release', 'nobody holds it any more');
  registerRemoval(point);
}

function registerHold(point: Command): void {
  const hold = point
    .command('hold')
    .description('nobody removes it, until it is released')
    .argument(...POINT)
    .argument('<reason>', 'shown wherever it is');
  withCommon(hold, 'the restore point as it is then').action(
    runCommand(async (of: string, reason: string, options: ReadOptions) =>
      (await loadChange()).hold(of, reason, options),
    ),
  );
  example(hold, "tidemark restore-point hold web@latest 'audit 2026-17'");
}

function registerRemoval(point: Command): void {
  const remove = point
    .command('remove')
    .description('to the trash, from where it can be brought back for a day at least')
    .argument(...POINT)
    .option('--last', 'even the newest good one of its VM and job: the VM is not needed any more');
  withCommon(remove, 'what came of it').action(
    runCommand(async (of: string, options: RemoveOptions) => (await loadChange()).remove(of, options)),
  );
  example(remove, 'tidemark restore-point remove 3f2a9c01');
  const undelete = point
    .command('undelete')
    .description('bring it back from the trash')
    .argument('<restore point>', 'its id or the beginning of it, from `restore-point list --removed`');
  withCommon(undelete, 'the restore point as it is then').action(
    runCommand(async (of: string, options: ReadOptions) => (await loadChange()).undelete(of, options)),
  );
  example(undelete, 'tidemark restore-point undelete 3f2a9c01');
}

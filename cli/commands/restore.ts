import { type Command, Option } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { RestoreOptions } from '../actions/restore.ts';

const load = () => import('../actions/restore.ts');
const POINT = ['<restore point>', 'its id, the beginning of it, or <vm>@latest'] as const;

const withTarget = (command: Command): Command =>
  withCommon(
    command
      .requiredOption('--into <folder>', 'absolute folder that the proxy may restore into')
      .addOption(new Option('--format <format>', 'of the files').choices(['raw', 'qcow2']).default('raw'))
      .option('--name <name>', 'files are called <name>-<disk>.<format> (default: the name of the VM)')
      .option('--proxy <proxy>', 'that writes them (default: any that may)')
      .option('--detach', 'return when it is started'),
    'the session when it has ended',
  );

export function register(program: Command): void {
  const restore = program.command('restore').description('restore to files; each block is checked against its digest');
  const vm = restore
    .command('vm')
    .description('restore all disks of a VM')
    .argument(...POINT);
  withTarget(vm).action(
    runCommand(async (point: string, options: RestoreOptions) => (await load()).restore(point, null, options)),
  );
  example(
    vm,
    'tidemark restore vm web@latest --into /restores',
    'tidemark restore vm 3f2a9c01 --into /restores --format qcow2',
  );

  const disk = restore
    .command('disk')
    .description('restore one disk')
    .argument(...POINT)
    .argument('<disk>', 'as `tidemark restore-point show` names it');
  withTarget(disk).action(
    runCommand(async (point: string, name: string, options: RestoreOptions) =>
      (await load()).restore(point, name, options),
    ),
  );
  example(disk, 'tidemark restore disk web@latest data --into /restores --name web-before');
}

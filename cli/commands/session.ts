import type { Command } from 'commander';
import { example, parseLimit, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ReadOptions } from '../actions/job.ts';
import type { ListOptions, StopOptions } from '../actions/session.ts';

const load = () => import('../actions/session.ts');
const SESSION = ['<session>', 'its id, the beginning of it, latest, or <job>@latest'] as const;

export function register(program: Command): void {
  const session = program.command('session').description('backup and restore sessions: runs of jobs, restores');
  const list = session
    .command('list')
    .description('the newest sessions')
    .option('--job <job>', 'only of this job')
    .option('--open', 'only those that have not ended')
    .option('--limit <count>', 'at most so many', parseLimit, 20);
  withCommon(list, 'the sessions').action(runCommand(async (options: ListOptions) => (await load()).list(options)));
  example(list, 'tidemark session list --job nightly');

  const show = session
    .command('show')
    .description('one session: VMs, disks, findings, errors')
    .argument(...SESSION);
  withCommon(show, 'the session').action(
    runCommand(async (name: string, options: ReadOptions) => (await load()).show(name, options)),
  );
  example(show, 'tidemark session show nightly@latest');

  const watch = session
    .command('watch')
    .description('show a session until it ends; the exit code is its result')
    .argument(...SESSION);
  withCommon(watch, 'the session when it has ended').action(
    runCommand(async (name: string, options: ReadOptions) => (await load()).watch(name, options)),
  );
  example(watch, 'tidemark session watch latest');

  const stop = session
    .command('stop')
    .description('stop a session: at once, undoing what is in work')
    .argument(...SESSION)
    .option('--graceful', 'let the VMs in work finish, start no others')
    .option('--wait', 'show it until it has ended; the exit code is its result');
  withCommon(stop, 'what was asked').action(
    runCommand(async (name: string, options: StopOptions) => (await load()).stop(name, options)),
  );
  example(stop, 'tidemark session stop latest --graceful --wait');
}

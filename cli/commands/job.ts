import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ReadOptions, RunOptions } from '../actions/job.ts';

const load = () => import('../actions/job.ts');

export function register(program: Command): void {
  const job = program.command('job').description('backup jobs: standing orders of site.yaml');
  const list = job.command('list').description('the jobs, each with its last session');
  withCommon(list, 'the jobs').action(runCommand(async (options: ReadOptions) => (await load()).list(options)));
  example(list, 'tidemark job list');

  const show = job.command('show').description('one job and its last sessions').argument('<job>', 'its name');
  withCommon(show, 'the job and its sessions').action(
    runCommand(async (name: string, options: ReadOptions) => (await load()).show(name, options)),
  );
  example(show, 'tidemark job show nightly');

  const run = job
    .command('run')
    .description('start a session of a job and show it until it ends; the exit code is its result')
    .argument('<job>', 'its name')
    .option('--detach', 'return when it is started');
  withCommon(run, 'the session when it has ended').action(
    runCommand(async (name: string, options: RunOptions) => (await load()).run(name, options)),
  );
  example(run, 'tidemark job run nightly', 'tidemark job run nightly --detach');
}

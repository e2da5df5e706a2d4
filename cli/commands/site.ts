import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';

const load = () => import('../actions/security.ts');

export function register(program: Command): void {
  const site = program.command('site').description('the installation as a whole: its certificate authority');
  const init = site
    .command('init')
    .description("make the site's certificate authority on this machine, so that others can join")
    .option('--site <id>', '1 to 6 of a-z and 0-9 (default: that of site.yaml as applied, else a random one)')
    .option('--machine <name>', "name of this machine (default: that of site.yaml, else the computer's own)");
  withCommon(init, 'what was made').action(
    runCommand(async (options: Parameters<Awaited<ReturnType<typeof load>>['initSite']>[0]) =>
      (await load()).initSite(options),
    ),
  );
  example(init, 'tidemark site init --site lab');
}

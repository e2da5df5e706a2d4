import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ResourceOptions } from '../actions/resources.ts';
import { registerKey } from './repository/key.ts';
import { registerMaintenance } from './repository/maintenance.ts';

const load = () => import('../actions/resources.ts');

export function register(program: Command): void {
  const repository = program.command('repository').description('repositories: what keeps restore points');
  const list = repository
    .command('list')
    .description('the repositories, how full they are, and how much of each is taken')
    .option('--all', 'also those removed from the site');
  withCommon(list, 'the repositories').action(
    runCommand(async (options: ResourceOptions) => (await load()).listRepositories(options)),
  );
  example(list, 'tidemark repository list');
  registerMaintenance(repository);
  registerKey(repository);
}

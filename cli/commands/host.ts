import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ResourceOptions } from '../actions/resources.ts';

const load = () => import('../actions/resources.ts');

export function register(program: Command): void {
  const host = program.command('host').description('hypervisor hosts, and their VMs as last seen');
  const list = host
    .command('list')
    .description('the hosts, and how much of each is taken')
    .option('--all', 'also those removed from the site');
  withCommon(list, 'the hosts').action(
    runCommand(async (options: ResourceOptions) => (await load()).listHosts(options)),
  );
  example(list, 'tidemark host list');
}

import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ResourceOptions } from '../actions/resources.ts';

const load = () => import('../actions/resources.ts');

export function register(program: Command): void {
  const proxy = program.command('proxy').description('proxies: what reads disks and writes restores');
  const list = proxy
    .command('list')
    .description('the proxies, and how much of each is taken')
    .option('--all', 'also those removed from the site');
  withCommon(list, 'the proxies').action(
    runCommand(async (options: ResourceOptions) => (await load()).listProxies(options)),
  );
  example(list, 'tidemark proxy list');
}

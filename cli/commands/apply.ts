import type { Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { ApplyOptions } from '../actions/apply.ts';

export function register(program: Command): void {
  const command = program
    .command('apply')
    .description('make the installation what site.yaml says; a file with a mistake changes nothing')
    .requiredOption('-f, --file <file>', 'the site, as engines/site/site-yaml.md describes it')
    .option('--dry-run', 'show what would change, and change nothing')
    .option('--yes', 'do not ask before removing what running sessions use');
  withCommon(command, 'changes and warnings').action(
    runCommand(async (options: ApplyOptions) => (await import('../actions/apply.ts')).apply(options)),
  );
  example(command, 'tidemark apply -f site.yaml --dry-run');
}

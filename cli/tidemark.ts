/** The `tidemark` command: one file per command in `commands/`, each with `register(program)`. */
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { Command, CommanderError } from 'commander';
import { exitCodes } from './exit-codes.ts';

const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
};
type CommandModule = { register(program: Command): void };

const exitCodeHelp = `
Exit codes: 0 done, 1 failed, 2 bad request or configuration, 3 done with a warning,
4 the stack or what was to be reached does not run, 130 interrupted.`;

async function createProgram(): Promise<Command> {
  const program = new Command('tidemark')
    .description('Durable backup of virtual machines: each backup session is a Temporal workflow')
    .version(version)
    .addHelpText('after', exitCodeHelp)
    .showHelpAfterError('(`--help` shows what is expected)')
    .exitOverride();
  const folder = path.join(import.meta.dirname, 'commands');
  const files = readdirSync(folder).filter((name) => name.endsWith('.ts') && !name.endsWith('.test.ts'));
  for (const name of files.sort()) {
    const module = (await import(path.join(folder, name))) as CommandModule;
    module.register(program);
  }
  return program;
}

// Whoever reads the output has gone (`tidemark session list | head`): there is nobody to tell anything.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(exitCodes.interrupted);
});

try {
  const program = await createProgram();
  await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) throw error;
  // commander has printed it already; help that was asked for is no error.
  process.exitCode = error.exitCode === 0 ? exitCodes.ok : exitCodes.badRequest;
}

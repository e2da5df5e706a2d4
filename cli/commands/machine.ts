import type { Command } from 'commander';
import { example, parseTime, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import type { SecurityOptions } from '../actions/security.ts';

const HOUR_MS = 3_600_000;
const load = () => import('../actions/security.ts');

export function register(program: Command): void {
  const machine = program
    .command('machine')
    .description('the machines of the site: who may join, who has, who no longer');
  const token = machine
    .command('token <machine>')
    .description('make a one-time token, with which that machine enrols')
    .requiredOption('--roles <roles>', 'what it may do: host, proxy, repository, or several with commas')
    .option('--valid-for <duration>', 'how long the token can be used (default: 1h)', parseTime, HOUR_MS);
  withCommon(token, 'the token').action(
    runCommand(async (name: string, options: SecurityOptions & { roles: string; validFor: number }) =>
      (await load()).createMachineToken(name, options),
    ),
  );
  example(token, 'tidemark machine token proxy-2 --roles proxy');
  const list = machine.command('list').description('the certificates that were given out');
  withCommon(list, 'the certificates').action(
    runCommand(async (options: SecurityOptions) => (await load()).listMachines(options)),
  );
  example(list, 'tidemark machine list');
  const revoke = machine
    .command('revoke <machine>')
    .description('trust a machine no longer: its certificates, its connections, its tokens');
  withCommon(revoke, 'what was revoked').action(
    runCommand(async (name: string, options: SecurityOptions) => (await load()).revokeMachine(name, options)),
  );
  example(revoke, 'tidemark machine revoke proxy-2');
}

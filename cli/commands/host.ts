import { type Command } from 'commander';
import { example, withCommon } from '../command-options.ts';
import { runCommand } from '../run-command.ts';
import { STATE_OPTION } from '../stack-access.ts';
import type { ResourceOptions } from '../actions/resources.ts';
import type { EnrolOptions } from '../actions/security.ts';

const load = () => import('../actions/resources.ts');

export function register(program: Command): void {
  const host = program
    .command('host')
    .description('hypervisor hosts and their VMs as last seen; machines that join a site');
  const list = host
    .command('list')
    .description('the hosts, and how much of each is taken')
    .option('--all', 'also those removed from the site');
  withCommon(list, 'the hosts').action(
    runCommand(async (options: ResourceOptions) => (await load()).listHosts(options)),
  );
  example(list, 'tidemark host list');
  const enroll = host
    .command('enroll')
    .description('make this computer a machine of a site, with a token of `tidemark machine token`')
    .requiredOption('--site <url>', "where the site's control worker lets machines enrol: https://host:port")
    .option(
      '--token-file <file>',
      'a file with the token, or - for standard input; else it is in $TIDEMARK_ENROLL_TOKEN',
    )
    .option('--token <token>', 'the token itself: every user of this machine can see it while the command runs')
    .option('--ca-fingerprint <fingerprint>', "of the site's authority, if it was told apart from the token");
  withCommon(enroll, 'what it is now').action(
    runCommand(async (options: EnrolOptions) => (await import('../actions/security.ts')).enrolHere(options)),
  );
  example(enroll, 'tidemark host enroll --site https://backup-1.example.org:7944 --token-file -');
  const run = host
    .command('run')
    .description('run what site.yaml gives this machine to do, in the foreground, until SIGTERM or Ctrl-C')
    .option(...STATE_OPTION);
  run.action(
    runCommand(async (options: { state?: string }) => (await import('../actions/run-machine.ts')).runHere(options)),
  );
  example(run, 'tidemark host run --state /var/lib/tidemark');
}

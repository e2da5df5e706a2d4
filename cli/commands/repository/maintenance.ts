import type { Command } from 'commander';
import type {
  CheckOptions,
  DryRunOptions,
  MaintenanceOptions,
  OpenPointsOptions,
  ResetClockOptions,
  StatsOptions,
} from '../../actions/maintenance-options.ts';
import { example, parseBytes, parseTime, withCommon } from '../../command-options.ts';
import { runCommand } from '../../run-command.ts';

const load = () => import('../../actions/repository-maintenance.ts');
const REPOSITORY = ['<repository>', 'its name in site.yaml'] as const;
const MAYBE_REPOSITORY = ['[repository]', 'its name in site.yaml; none with --offline'] as const;

/** Where no stack runs: this process takes the repository for itself. */
const withOffline = (command: Command): Command =>
  command
    .option('--offline <folder>', 'work on the folder of a repository by itself, which nobody else may have open')
    .option('--passphrase-file <file>', 'with --offline: the passphrase of an encrypted repository')
    .option('--key-file <file>', 'with --offline: its key file')
    .option('--passphrase-environment <name>', 'with --offline: the variable that has its passphrase');

/** Below `tidemark repository`. */
export function registerMaintenance(repository: Command): void {
  registerCheck(repository);
  registerPrune(repository);
  registerImport(repository);
  registerRepair(repository);
  registerStats(repository);
  registerResetClock(repository);
  registerOpenPoints(repository);
}

function registerCheck(repository: Command): void {
  const check = repository
    .command('check')
    .description('look for damage; exit code 1 when there is some. Without more: structure, roots, presence')
    .argument(...MAYBE_REPOSITORY)
    .option('--full', 'read every byte and compare it with its digest')
    .option('--sums', 'read every byte and compare it with the sum it was stored with')
    .option('--vm <name>', 'only what restore points of this VM need')
    .option('--restore-point <restore point>', 'only what this one needs')
    .option('--max-bytes <size>', 'end after so much, like 200GiB; the next check goes on from there', parseBytes)
    .option('--max-time <duration>', 'end after so long, like 2h', parseTime)
    .option('--detach', 'return when it is started');
  withCommon(withOffline(check), 'the session when it has ended').action(
    runCommand(async (name: string | undefined, options: CheckOptions) => (await load()).check(name, options)),
  );
  example(
    check,
    'tidemark repository check main --full --max-time 2h',
    'tidemark repository check main --restore-point web@latest --full',
    'tidemark repository check --offline /backups/main',
  );
}

function registerPrune(repository: Command): void {
  const prune = repository
    .command('prune')
    .description('retention and collection now: what no rule keeps goes to the trash, what nothing needs makes room')
    .argument(...REPOSITORY)
    .option('--dry-run', 'say what would go, and why each that stays, stays; change nothing')
    .option('--detach', 'return when it is started');
  withCommon(prune, 'the session when it has ended').action(
    runCommand(async (name: string, options: DryRunOptions) => (await load()).prune(name, options)),
  );
  example(prune, 'tidemark repository prune main --dry-run', 'tidemark repository prune main');
}

function registerImport(repository: Command): void {
  const importing = repository
    .command('import')
    .description('make the catalog what the repository holds: after the catalog was lost, or another has written here')
    .argument(...REPOSITORY)
    .option('--detach', 'return when it is started');
  withCommon(importing, 'the session when it has ended').action(
    runCommand(async (name: string, options: MaintenanceOptions) => (await load()).importCatalog(name, options)),
  );
  example(importing, 'tidemark repository import main');
}

function registerRepair(repository: Command): void {
  const repair = repository
    .command('repair')
    .description('save what is sound of damaged packs, and say which restore points cannot be restored whole')
    .argument(...MAYBE_REPOSITORY)
    .option('--dry-run', 'say what would be saved; change nothing')
    .option('--detach', 'return when it is started');
  withCommon(withOffline(repair), 'the session when it has ended').action(
    runCommand(async (name: string | undefined, options: DryRunOptions) => (await load()).repair(name, options)),
  );
  example(repair, 'tidemark repository repair main --dry-run');
}

function registerStats(repository: Command): void {
  const stats = repository
    .command('stats')
    .description('how much of everything it has, measured now, and when it will be full')
    .argument(...MAYBE_REPOSITORY);
  withCommon(withOffline(stats), 'the figures').action(
    runCommand(async (name: string | undefined, options: StatsOptions) => (await load()).stats(name, options)),
  );
  example(stats, 'tidemark repository stats main');
}

function registerResetClock(repository: Command): void {
  const reset = repository
    .command('reset-clock')
    .description('set repository time back to the present, after clocks were set ahead by mistake and put right again')
    .argument(...REPOSITORY)
    .requiredOption('--today <day>', 'what day it is, like 2026-11-30: the clocks of host and Temporal have to agree')
    .option('--detach', 'return when it is started');
  withCommon(reset, 'the session when it has ended').action(
    runCommand(async (name: string, options: ResetClockOptions) => (await load()).resetClock(name, options)),
  );
  example(reset, 'tidemark repository reset-clock main --today 2026-11-30');
}

function registerOpenPoints(repository: Command): void {
  const open = repository
    .command('open-points')
    .description('restore points that were begun and are not sealed: of sessions in work, or left behind')
    .argument(...REPOSITORY)
    .option('--abort <restore point>', 'end this one for good (its id or the beginning of it), if nobody writes to it')
    .option('--detach', 'return when it is started');
  withCommon(open, 'the session when it has ended').action(
    runCommand(async (name: string, options: OpenPointsOptions) => (await load()).openPoints(name, options)),
  );
  example(open, 'tidemark repository open-points main', 'tidemark repository open-points main --abort 3f2a9c01');
}

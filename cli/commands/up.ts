/** `tidemark up`: the embedded stack, in the foreground or detached. */
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { mkdir, readFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Command, InvalidArgumentError } from 'commander';
import { assertSocketPathsFit, type StackLayout } from '../../engines/stack/layout.ts';
import type { StackPorts } from '../../engines/stack/ports.ts';
import {
  type ChildStatus,
  isSupervisorRunning,
  readStackFile,
  type StackConnections,
  type StackFile,
} from '../../engines/stack/stack-file.ts';
import { startStack } from '../../engines/stack/start-stack.ts';
import type { Stack } from '../../engines/stack/supervisor.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import { loadPayloadCodec } from '../../workers/runtime/payload-codec.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import { example } from '../command-options.ts';
import { exitCodes } from '../exit-codes.ts';
import { printJson, runCommand } from '../run-command.ts';
import { layoutOf, locateTools, STATE_OPTION, workerEntries } from '../stack-access.ts';

type UpOptions = { state?: string; detach?: boolean; json?: boolean; uiPort?: number; temporalPort?: number };

/** How long until a stack that is not ready is reported as such; it goes on trying behind that. */
const READY_LIMIT_MS = 60_000;
const HOPELESS_RESTARTS = 5;

export function parsePort(text: string): number {
  const port = Number(text);
  if (/^\d{1,5}$/.test(text) && port >= 1 && port <= 65_535) return port;
  throw new InvalidArgumentError('a port is a number from 1 to 65535');
}

async function migrate(database: StackConnections['database']): Promise<void> {
  // Loaded here only: no other command of the stack needs the database driver.
  const { migrateCatalog } = await import('../../schema/catalog/migrate.ts');
  const { socket, user, name, passwordFile } = database;
  const password = await readFile(passwordFile, 'utf8');
  const { applied } = await migrateCatalog({ socket, user, password, database: name });
  if (applied.length > 0) console.log(`catalog: ${applied.length} migrations applied`);
}

function showChange(child: ChildStatus): void {
  if (child.state === 'ready') console.log(`${child.name}: ready (pid ${child.pid})`);
  if (child.state === 'waiting') console.log(`${child.name}: died (${child.lastExit}), restart ${child.restarts}`);
}

function showAddresses(stack: StackFile, layout: StackLayout): void {
  console.log(`\nTidemark runs; its state is in ${layout.folder}`);
  console.log(`Temporal UI: ${stack.temporal.uiUrl}`);
  console.log(`Temporal:    ${stack.temporal.address}, namespace ${stack.temporal.namespace}`);
}

function showUnready(stack: StackFile, layout: StackLayout): void {
  for (const { name, state, lastExit } of stack.children.filter((child) => child.state !== 'ready')) {
    console.error(`warning: ${name} is ${state} (${lastExit ?? 'no answer yet'}); its log is ${layout.logFile(name)}`);
  }
}

const askedPorts = ({ uiPort, temporalPort }: UpOptions): Partial<StackPorts> => ({
  ...(uiPort === undefined ? {} : { ui: uiPort }),
  ...(temporalPort === undefined ? {} : { temporal: temporalPort }),
});

/** Resolves at the first request to end; there from before the first child starts. */
function endRequest(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, resolve);
  });
}

async function foreground(options: UpOptions): Promise<number> {
  const layout = layoutOf(options.state);
  const { clock, log } = createSeams('stack');
  const ended = endRequest();
  const stack: Stack = await startStack({
    stateFolder: layout.folder,
    tools: locateTools(),
    workers: workerEntries(),
    ports: askedPorts(options),
    hasPayloadCodec: (await loadPayloadCodec(layout.payloadKeysFile, process.env)) !== null,
    migrate,
    clock,
    log,
    onChange: showChange,
  });
  void stack.whenReady(READY_LIMIT_MS).then((ready) => {
    if (stack.describe().state === 'stopping') return;
    if (!ready) showUnready(stack.describe(), layout);
    showAddresses(stack.describe(), layout);
  });
  const signal = await ended;
  console.log(`${signal}: stopping`);
  await stack.stop();
  console.log('stopped');
  return signal === 'SIGINT' ? exitCodes.interrupted : exitCodes.ok;
}

/** Last lines of the detached supervisor's log that a person can read. */
async function tailOf(file: string): Promise<string> {
  const lines = (await readFile(file, 'utf8')).trimEnd().split('\n');
  const errorAt = lines.findLastIndex((line) => line.startsWith('error: '));
  return lines.slice(errorAt >= 0 ? errorAt : -5).join('\n');
}

/** Nothing is still coming up: what is not ready dies again and again. The supervisor tries on all the same. */
const isHopeless = ({ children }: StackFile): boolean =>
  children.some(({ restarts }) => restarts >= HOPELESS_RESTARTS) &&
  children.every(({ state, restarts }) => state === 'ready' || restarts >= HOPELESS_RESTARTS);

async function waitForStack(pid: number, layout: StackLayout, isGone: () => boolean): Promise<StackFile | null> {
  const deadline = performance.now() + READY_LIMIT_MS;
  let stack: StackFile | null = null;
  while (performance.now() < deadline) {
    const read = readStackFile(layout.stackFile);
    if (read?.pid === pid) stack = read;
    if (isGone() || stack?.state === 'running' || (stack !== null && isHopeless(stack))) return stack;
    await sleep(100);
  }
  return stack;
}

function assertNotRunning(layout: StackLayout): void {
  const stack = readStackFile(layout.stackFile);
  if (stack === null || !isSupervisorRunning(stack)) return;
  throw new TidemarkError('STACK_RUNNING', `the stack runs already, pid ${stack.pid}`, { pid: stack.pid });
}

/** Starts the foreground form in a session of its own, and waits until everything is ready. */
async function detached(options: UpOptions): Promise<number> {
  const layout = layoutOf(options.state);
  assertNotRunning(layout);
  assertSocketPathsFit(layout);
  locateTools();
  await mkdir(layout.logFolder, { recursive: true, mode: 0o700 });
  const logFile = layout.logFile('stack');
  const log = openSync(logFile, 'a', 0o600);
  const ports = Object.entries(askedPorts(options)).flatMap(([name, port]) => [`--${name}-port`, String(port)]);
  const entry = path.join(import.meta.dirname, '../tidemark.ts');
  const args = [entry, 'up', '--state', layout.folder, ...ports];
  const child = spawn(process.execPath, args, { detached: true, stdio: ['ignore', log, log] });
  closeSync(log);
  child.unref();
  const stack = await waitForStack(child.pid ?? 0, layout, () => child.exitCode !== null || child.signalCode !== null);
  if (stack === null || child.exitCode !== null || child.signalCode !== null) {
    process.stderr.write(`${await tailOf(logFile)}\n(log: ${logFile})\n`);
    return child.exitCode ?? exitCodes.failed;
  }
  if (options.json) printJson(stack);
  else showAddresses(stack, layout);
  if (stack.state === 'running') return exitCodes.ok;
  showUnready(stack, layout);
  return exitCodes.warning;
}

export function register(program: Command): void {
  const command = program
    .command('up')
    .description('start the embedded stack: Temporal, the catalog, the guest keeper and one worker per role')
    .option(...STATE_OPTION)
    .option('--detach', 'return when everything is ready; `tidemark down` ends it')
    .option('--ui-port <port>', "port of Temporal's UI (default: a free one, kept)", parsePort)
    .option('--temporal-port <port>', 'port of Temporal (default: a free one, kept)', parsePort)
    .option('--json', 'with --detach: print what runs as JSON')
    .action(runCommand((options: UpOptions) => (options.detach ? detached(options) : foreground(options))));
  example(command, 'tidemark up', 'tidemark up --detach --ui-port 8233');
}

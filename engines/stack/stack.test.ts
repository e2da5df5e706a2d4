import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { locateMariadbShare, locateTool, rootFolder } from '../../setup/locate.mjs';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import { stackLayout } from './layout.ts';
import { endLeftovers } from './leftovers.ts';
import { identityOf, isRunning, type ProcessIdentity, signalProcess, waitUntilGone } from './process-identity.ts';
import { readStackFile, runningChildren, type StackFile } from './stack-file.ts';
import { startStack } from './start-stack.ts';
import { Child, type ChildSpec, nextPauseMs } from './child.ts';
import { workerNames } from './worker-child.ts';

const missing = ['temporal', 'mariadbd'].filter((name) => locateTool(name) === null);
if (missing.length > 0) console.warn(`NOT TESTED, missing: ${missing.join(', ')}; run node setup/setup.mjs --for test`);
const node = path.join(rootFolder, 'node_modules/.bin/node');

/** Ready after a moment; notes its environment; exits when its parent is gone, as real workers do. */
const standIn = `
import { writeFileSync } from 'node:fs';
import path from 'node:path';
const name = path.basename(process.argv[1], '.mjs');
const mine = Object.entries(process.env).filter(([key]) => key.startsWith('TIDEMARK_'));
writeFileSync(path.join(process.env.TIDEMARK_STATE, name + '.environment'), JSON.stringify(Object.fromEntries(mine)));
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
setTimeout(() => process.send({ ready: true }), 50);
setInterval(() => undefined, 1000);
`;

/** A supervisor in a process of its own: what \`tidemark up\` is. */
const supervisor = (module: string, options: string): string => `
import { startStack } from '${module}';
const clock = { now: () => Date.now(), monotonic: () => performance.now(),
  sleep: (ms, signal) => import('node:timers/promises').then((t) => t.setTimeout(ms, undefined, { signal })) };
const quiet = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
try {
  const stack = await startStack({ ...${options}, clock, log: quiet, migrate: async () => undefined });
  process.on('SIGTERM', () => void stack.stop().then(() => process.exit(0)));
  console.log(await stack.whenReady(60000) ? 'ready' : 'not ready');
} catch (error) {
  console.log(error.code + ' ' + error.message);
  process.exit(1);
}
`;

describe.skipIf(missing.length > 0)('a stack', () => {
  let folder: string;
  let state: string;
  let script: string;
  const started: ChildProcess[] = [];

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'tm-stack-'));
    state = path.join(folder, 'state');
    const workers: Record<string, string> = {};
    for (const name of workerNames) {
      workers[name] = path.join(folder, `${name}.mjs`);
      await writeFile(workers[name], standIn);
    }
    const [temporal, mariadbd, mariadbShare] = [locateTool('temporal'), locateTool('mariadbd'), locateMariadbShare()];
    const tools = { temporal, mariadbd, mariadbShare, node };
    script = path.join(folder, 'up.mjs');
    const module = pathToFileURL(path.join(import.meta.dirname, 'start-stack.ts')).href;
    await writeFile(script, supervisor(module, JSON.stringify({ stateFolder: state, tools, workers, ports: {} })));
  });

  afterAll(async () => {
    for (const child of started) child.kill('SIGKILL');
    await endLeftovers(stackLayout(state).stackFile);
    await rm(folder, { recursive: true, force: true });
  });

  const read = (): StackFile => readStackFile(stackLayout(state).stackFile)!;
  const childOf = (name: string): StackFile['children'][number] =>
    read().children.find((child) => child.name === name)!;

  async function until(what: string, holds: () => boolean): Promise<void> {
    const deadline = Date.now() + 25_000;
    while (!holds()) {
      if (Date.now() > deadline) throw new Error(`never came to be: ${what}\n${JSON.stringify(read(), null, 1)}`);
      await sleep(20);
    }
  }

  async function up(): Promise<{ said: string; process: ChildProcess }> {
    const child = spawn(node, [script], { stdio: ['ignore', 'pipe', 'inherit'] });
    started.push(child);
    const said = await new Promise<string>((resolve) => {
      child.stdout.once('data', (data: Buffer) => resolve(data.toString().trim()));
    });
    return { said, process: child };
  }

  const identitiesOf = (stack: StackFile): ProcessIdentity[] =>
    runningChildren(stack).concat([{ name: 'supervisor', pid: stack.pid, startTicks: stack.startTicks }]);

  test('starts all, heals, refuses a second, follows the configuration, survives kill -9, leaves nothing', async () => {
    // all are ready, and only control knows the catalog
    expect((await up()).said).toBe('ready');
    const first = read();
    expect(first.state).toBe('running');
    expect(first.children.map(({ name, state }) => [name, state])).toEqual(
      ['database', 'temporal', ...workerNames].map((name) => [name, 'ready']),
    );
    const environment = async (name: string): Promise<string[]> =>
      Object.keys(JSON.parse(await readFile(path.join(state, `${name}.environment`), 'utf8')) as object);
    expect(await environment('control')).toContain('TIDEMARK_DATABASE_SOCKET');
    expect((await environment('proxy')).filter((key) => key.includes('DATABASE'))).toEqual([]);
    const password = await readFile(first.database.passwordFile, 'utf8');
    expect(password).toMatch(/^[0-9a-f]{48}$/);
    expect(await readFile(`/proc/${childOf('database').pid}/cmdline`, 'utf8')).not.toContain(password);

    // a second one is refused, naming the first
    expect((await up()).said).toBe(`STACK_RUNNING the stack runs already, pid ${first.pid}`);

    // a killed worker and a killed server come back
    for (const name of ['proxy', 'database', 'temporal']) {
      const before = childOf(name).pid!;
      process.kill(before, 'SIGKILL');
      await until(`${name} again`, () => childOf(name).state === 'ready' && childOf(name).pid !== before);
      expect(childOf(name)).toMatchObject({ restarts: 1, lastExit: 'signal SIGKILL' });
    }

    // a changed configuration restarts those that use it, and only them
    const before = read();
    const layout = stackLayout(state);
    await writeFile(`${layout.machineFile}.new`, '{"changed":true}');
    await rename(`${layout.machineFile}.new`, layout.machineFile);
    const digest = createHash('sha256').update('{"changed":true}').digest('hex');
    await until('configuration applied', () => {
      const { configuration } = read();
      return configuration.digest === digest && configuration.state === 'applied';
    });
    const pid = (stack: StackFile, name: string): number | null => stack.children.find((c) => c.name === name)!.pid;
    const changed = workerNames.filter((name) => pid(read(), name) !== pid(before, name));
    expect(changed).toEqual(['keeper', 'host', 'proxy', 'repository']);

    // the supervisor is killed: servers live on, and the next one ends them and uses the same ports
    const killed = read();
    process.kill(killed.pid, 'SIGKILL');
    expect(await waitUntilGone(killed, 5000)).toBe(true);
    expect(runningChildren(killed).map(({ name }) => name)).toEqual(expect.arrayContaining(['database', 'temporal']));
    const again = await up();
    expect(again.said).toBe('ready');
    expect(identitiesOf(killed).filter(isRunning)).toEqual([]);
    expect(read().temporal).toEqual(first.temporal);

    // and an orderly end leaves no process and no lock
    const last = read();
    again.process.kill('SIGTERM');
    expect(await waitUntilGone(last, 30_000)).toBe(true);
    expect(identitiesOf(last).filter(isRunning)).toEqual([]);
    expect(existsSync(layout.lockFile)).toBe(false);
    expect(read().children.every((child) => child.state === 'stopped' && child.pid === null)).toBe(true);
  }, 120_000);
});

describe('pieces of a stack', () => {
  test('a state folder too long for sockets is refused before anything is made', async () => {
    const stateFolder = path.join(tmpdir(), 'x'.repeat(120));
    const { clock, log } = testSeams();
    const tools = { temporal: '', mariadbd: '', mariadbShare: '', node };
    const workers = Object.fromEntries(workerNames.map((name) => [name, ''])) as Record<
      (typeof workerNames)[number],
      string
    >;
    const migrate = async (): Promise<void> => undefined;
    const attempt = startStack({ stateFolder, tools, workers, ports: {}, migrate, clock, log });
    await expect(attempt).rejects.toSatisfy((error) => errorCodeOf(error) === 'BAD_CONFIG');
    expect(existsSync(stateFolder)).toBe(false);
  });

  test('pauses double from 100 ms to 5 s, and begin anew after a healthy life', () => {
    const pauses = [0, 1, 2, 3, 4, 5, 6, 7].reduce<number[]>((all) => [...all, nextPauseMs(all.at(-1) ?? 0, 10)], []);
    expect(pauses).toEqual([100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    expect(nextPauseMs(5000, 30_000)).toBe(100);
  });

  test('a process that only shares the pid is not signalled', async () => {
    const child = spawn('sleep', ['30']);
    onTestFinished(() => void child.kill('SIGKILL'));
    const identity = identityOf(child.pid!)!;
    signalProcess({ ...identity, startTicks: String(Number(identity.startTicks) - 1) }, 'SIGKILL');
    await sleep(50);
    expect(isRunning(identity)).toBe(true);
    signalProcess(identity, 'SIGKILL');
    expect(await waitUntilGone(identity, 5000)).toBe(true);
  });

  test('a child that ignores SIGTERM is killed; one that cannot start is tried again until stopped', async () => {
    const folder = await mkdtemp(path.join(tmpdir(), 'tm-child-'));
    onTestFinished(() => rm(folder, { recursive: true, force: true }));
    await mkdir(folder, { recursive: true });
    const { clock } = testSeams();
    const deaf = `process.on('SIGTERM', () => undefined); process.send({ready: true}); setInterval(() => undefined, 1000)`;
    const spec: ChildSpec = {
      name: 'deaf',
      command: node,
      args: ['-e', deaf],
      environment: {},
      readiness: { kind: 'message' },
      graceMs: 100,
    };
    const child = new Child(spec, path.join(folder, 'log'), clock, () => undefined);
    child.start();
    expect(await child.whenReady(10_000)).toBe(true);
    await child.stop();
    expect(child.status()).toMatchObject({ state: 'stopped', lastExit: 'signal SIGKILL', restarts: 0, pid: null });

    const absent = new Child({ ...spec, command: '/nonexistent' }, path.join(folder, 'log'), clock, () => undefined);
    absent.start();
    while (absent.status().restarts < 2) await sleep(20);
    await absent.stop();
    expect(absent.status().lastExit).toMatch(/cannot be started: .*ENOENT/);
  });
});

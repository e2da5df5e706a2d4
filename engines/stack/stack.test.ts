import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { appendFile, mkdir, mkdtemp, readFile, rename, rm, rmdir, stat, symlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { locateMariadbShare, locateTool, rootFolder } from '../../setup/locate.mjs';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { assertSocketPathsFit, stackLayout } from './layout.ts';
import { watchConfiguration } from './configuration-watch.ts';
import { prepareDatabase } from './database.ts';
import { endLeftovers } from './leftovers.ts';
import { keepShort } from './log-file.ts';
import { choosePorts, serverPorts } from './ports.ts';
import {
  findProcesses,
  identityOf,
  isRunning,
  type ProcessIdentity,
  signalProcess,
  waitUntilGone,
} from './process-identity.ts';
import { readStackFile, runningChildren, type StackFile } from './stack-file.ts';
import { startStack } from './start-stack.ts';
import { Child, type ChildSpec, nextPauseMs } from './child.ts';
import { residentBytes } from './worker-caps.ts';
import { type WorkerName, workerNames } from './worker-child.ts';

const missing = ['temporal', 'mariadbd'].filter((name) => locateTool(name) === null);
if (missing.length > 0) console.warn(`NOT TESTED, missing: ${missing.join(', ')}; run node setup/setup.mjs --for test`);
const node = path.join(rootFolder, 'node_modules/.bin/node');

/** Ready after a moment; notes its environment; exits when its parent is gone, as real workers do. */
const standIn = `
import { existsSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
const name = path.basename(process.argv[1], '.mjs');
const mine = Object.entries(process.env).filter(([key]) => key.startsWith('TIDEMARK_'));
writeFileSync(path.join(process.env.TIDEMARK_STATE, name + '.environment'), JSON.stringify(Object.fromEntries(mine)));
// Takes 256 MiB once, when the test says so.
const grow = path.join(process.env.TIDEMARK_STATE, name + '.grow');
if (existsSync(grow)) {
  rmSync(grow);
  globalThis.taken = Buffer.alloc(256 * 1024 * 1024, 1);
}
process.on('disconnect', () => process.exit(0));
process.on('SIGTERM', () => process.exit(0));
setTimeout(() => process.send({ ready: true }), 50);
setInterval(() => undefined, 1000);
`;

/** A supervisor in a process of its own: what \`tidemark up\` is. */
const supervisor = (module: string, options: string): string => `
import { startStack } from '${module}';
const clock = { now: () => Date.now(), monotonic: () => performance.now(),
  // Memory is looked at twice a minute: here more often.
  sleep: (ms, signal) => import('node:timers/promises').then((t) => t.setTimeout(ms === 30_000 ? 300 : ms, undefined, { signal })) };
const quiet = { debug() {}, info() {}, warn() {}, error() {}, child: () => quiet };
try {
  const stack = await startStack({ ...${options}, stateFolder: process.argv[2], hasPayloadCodec: false, clock, log: quiet, migrate: async () => undefined });
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
    await writeFile(script, supervisor(module, JSON.stringify({ tools, workers, ports: {} })));
  });

  afterAll(async () => {
    for (const child of started) child.kill('SIGKILL');
    await endLeftovers(stackLayout(state).stackFile);
    await rm(folder, { recursive: true, force: true });
  });

  async function startStorageDaemon(stateFolder: string): Promise<ProcessIdentity> {
    const pidFile = path.join(folder, `daemon-${started.length}.pid`);
    const env = { ...process.env, TIDEMARK_STATE: stateFolder };
    started.push(spawn('qemu-storage-daemon', ['--pidfile', pidFile], { env, stdio: 'ignore' }));
    while (!existsSync(pidFile)) await sleep(20);
    return identityOf(started.at(-1)!.pid!)!;
  }

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

  function spawnUp(stateFolder: string): ChildProcess {
    const child = spawn(node, [script, stateFolder], { stdio: ['ignore', 'pipe', 'inherit'] });
    started.push(child);
    return child;
  }

  async function up(stateFolder = state): Promise<{ said: string; process: ChildProcess }> {
    const child = spawnUp(stateFolder);
    const said = await new Promise<string>((resolve) => {
      child.stdout!.once('data', (data: Buffer) => resolve(data.toString().trim()));
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

    // a record that cannot be written does not end the supervisor
    const layout = stackLayout(state);
    await mkdir(`${layout.stackFile}.new`);
    const proxy = childOf('proxy').pid!;
    process.kill(proxy, 'SIGKILL');
    expect(await waitUntilGone({ pid: proxy, startTicks: childOf('proxy').startTicks! }, 5000)).toBe(true);
    await sleep(500);
    await rmdir(`${layout.stackFile}.new`);
    process.kill(childOf('host').pid!, 'SIGKILL');
    await until('host again', () => childOf('host').state === 'ready' && childOf('host').restarts === 1);
    expect(childOf('proxy')).toMatchObject({ state: 'ready', restarts: 2 });

    // a changed configuration restarts those that read what changed, and only them
    const pid = (stack: StackFile, name: string): number | null => stack.children.find((c) => c.name === name)!.pid;
    const restartedBy = async (text: string): Promise<string[]> => {
      const before = read();
      await writeFile(`${layout.machineFile}.new`, text);
      await rename(`${layout.machineFile}.new`, layout.machineFile);
      const digest = createHash('sha256').update(text).digest('hex');
      await until('configuration applied', () => {
        const { configuration } = read();
        return configuration.digest === digest && configuration.state === 'applied';
      });
      return workerNames.filter((name) => pid(read(), name) !== pid(before, name));
    };
    expect(await restartedBy('{"site":"lab","proxies":[]}')).toEqual(['keeper', 'host', 'proxy', 'repository']);
    expect(await restartedBy('{"proxies":[],"hosts":[1],"site":"lab"}')).toEqual(['keeper', 'host']);
    expect(await restartedBy('{"proxies":[2],"hosts":[1],"site":"lab"}')).toEqual(['proxy']);

    // a worker that takes more memory than it may is started anew, and only that one
    await writeFile(path.join(state, 'repository.grow'), '');
    const most = 200 * 1024 * 1024;
    const capped = { memoryBytes: most, cpus: null, nice: null };
    const text = JSON.stringify({ proxies: [2], hosts: [1], site: 'lab', workers: { repository: capped } });
    expect(await restartedBy(text)).toEqual(['repository']);
    const grown = read();
    await until('the repository started anew', () => {
      const { pid: now, state: how } = childOf('repository');
      return how === 'ready' && now !== pid(grown, 'repository');
    });
    expect(await residentBytes(childOf('repository').pid!)).toBeLessThan(most);
    expect(existsSync(path.join(state, 'repository.grow'))).toBe(false);
    const others = workerNames.filter((name) => name !== 'repository');
    expect(others.filter((name) => pid(read(), name) !== pid(grown, name))).toEqual([]);

    // the supervisor is killed: servers live on, and the next one ends them and uses the same ports
    const daemon = await startStorageDaemon(state);
    const foreign = await startStorageDaemon(`${state}-other`);
    const killed = read();
    process.kill(killed.pid, 'SIGKILL');
    expect(await waitUntilGone(killed, 5000)).toBe(true);
    expect(runningChildren(killed).map(({ name }) => name)).toEqual(expect.arrayContaining(['database', 'temporal']));
    // as if it had been killed before it wrote them down
    const unrecorded = killed.children.filter(({ name }) => name !== 'database' && name !== 'temporal');
    await writeFile(layout.stackFile, JSON.stringify({ ...killed, children: unrecorded }));
    // of several at once, one starts
    const tries = await Promise.all([up(), up(), up()]);
    const again = tries.find(({ said }) => said === 'ready')!;
    expect(tries.filter(({ said }) => said.startsWith('STACK_RUNNING'))).toHaveLength(2);
    expect(identitiesOf(killed).filter(isRunning)).toEqual([]);
    expect(read().temporal).toEqual(first.temporal);
    // a session's storage daemon lives through that
    expect(isRunning(daemon)).toBe(true);

    // and an orderly end leaves no process and no lock
    const last = read();
    again.process.kill('SIGTERM');
    expect(await waitUntilGone(last, 30_000)).toBe(true);
    expect(identitiesOf(last).filter(isRunning)).toEqual([]);
    expect([isRunning(daemon), isRunning(foreign)]).toEqual([false, true]);
    expect(existsSync(layout.lockFile)).toBe(false);
    expect(read().children.every((child) => child.state === 'stopped' && child.pid === null)).toBe(true);
  }, 120_000);

  test('killed at any moment of its start, the next one comes up', async () => {
    const { next } = seeded();
    const again = path.join(folder, 'again');
    onTestFinished(async () => void (await endLeftovers(stackLayout(again).stackFile)));
    for (let kill = 0; kill < 5; kill += 1) {
      const child = spawnUp(again);
      await sleep(next(kill < 2 ? 1000 : 2500));
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    const { said, process: last } = await up(again);
    expect(said).toBe('ready');
    last.kill('SIGTERM');
    await once(last, 'exit');
    expect(findProcesses((command) => command.some((word) => word.includes(again)))).toEqual([]);
  }, 120_000);
});

/** Without tools: for what is refused before they are used. */
function startWithoutTools(stateFolder: string): Promise<unknown> {
  const { clock, log } = testSeams();
  const tools = { temporal: '', mariadbd: '', mariadbShare: '', node };
  const workers = Object.fromEntries(workerNames.map((name) => [name, ''])) as Record<WorkerName, string>;
  return startStack({
    stateFolder,
    tools,
    workers,
    ports: {},
    hasPayloadCodec: false,
    migrate: async () => undefined,
    clock,
    log,
  });
}

async function temporaryFolder(): Promise<string> {
  const folder = await mkdtemp(path.join(tmpdir(), 'tm-piece-'));
  onTestFinished(() => rm(folder, { recursive: true, force: true }));
  return folder;
}

describe('pieces of a stack', () => {
  test('ports asked for are given even when one is kept for something else; none is given twice', async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, 'ports.json');
    const kept = await choosePorts(file, {});
    const swapped = await choosePorts(file, { ui: kept.temporal });
    expect(swapped.ui).toBe(kept.temporal);
    expect(new Set(Object.values(swapped)).size).toBe(5);
    const twice = choosePorts(file, { ui: kept.temporal, http: kept.temporal });
    await expect(twice).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    await writeFile(file, '{"temporal":"x","ui":70000,"http":null}');
    expect(new Set(Object.values(await choosePorts(file, {}))).size).toBe(5);
  });

  // A connection from a stack's UI port to another stack kept Temporal dying for as long as it lived.
  test('free ports are none that the system gives to whoever connects', async () => {
    const range = await readFile('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
    const [low, high] = range.trim().split(/\s+/).map(Number);
    const folder = await temporaryFolder();
    const ports = Object.values(await choosePorts(path.join(folder, 'ports.json'), {}));
    expect(ports.filter((port) => port >= low! && port <= high!)).toEqual([]);
    expect(serverPorts('32768\t60999\n')).toEqual({ from: 20_000, to: 32_768 });
    expect(serverPorts('1024 60999')).toEqual({ from: 61_000, to: 65_536 });
    expect([serverPorts('1024 65535'), serverPorts('none')]).toEqual([null, null]);
  });

  test("another user's stack is refused, and a database without its password", async () => {
    const folder = await temporaryFolder();
    await mkdir(stackLayout(folder).databaseFolder);
    await expect(startWithoutTools(folder)).rejects.toMatchObject({ code: 'DATABASE_ERROR' });
    const user = vi.spyOn(process, 'getuid').mockReturnValue(4711);
    onTestFinished(() => user.mockRestore());
    const message = expect.stringContaining('user 4711');
    await expect(startWithoutTools(folder)).rejects.toMatchObject({ code: 'BAD_CONFIG', message });
  });

  test.skipIf(locateTool('mariadbd') === null)(
    'a database made beside one that was moved away has its password, and none is made where a link leads nowhere',
    async () => {
      const layout = stackLayout(await temporaryFolder());
      const tools = { node, temporal: '', mariadbd: locateTool('mariadbd')!, mariadbShare: locateMariadbShare()! };
      await mkdir(path.dirname(layout.databasePasswordFile), { recursive: true });
      await prepareDatabase(layout, tools);
      const password = await readFile(layout.databasePasswordFile, 'utf8');
      await rename(layout.databaseFolder, `${layout.databaseFolder}.aside`);
      await symlink('/nowhere/database', layout.databaseFolder);
      const message = expect.stringContaining('lies in /nowhere/database, which is not there');
      await expect(prepareDatabase(layout, tools)).rejects.toMatchObject({ code: 'DATABASE_ERROR', message });
      await rm(layout.databaseFolder);
      await prepareDatabase(layout, tools);
      expect(await readFile(layout.databasePasswordFile, 'utf8')).toBe(password);
      await rm(layout.databaseFolder, { recursive: true });
      await writeFile(layout.databasePasswordFile, '');
      await prepareDatabase(layout, tools);
      expect(await readFile(layout.databasePasswordFile, 'utf8')).toMatch(/^[0-9a-f]{48}$/);
    },
  );

  test('a state folder that cannot be written is named', async () => {
    const file = path.join(await temporaryFolder(), 'file');
    await writeFile(file, '');
    const message = expect.stringContaining(path.join(file, 'x'));
    await expect(startWithoutTools(path.join(file, 'x'))).rejects.toMatchObject({ code: 'STORAGE_ERROR', message });
  });

  test('leftovers are ended also when the stack file was lost to a power cut', async () => {
    const folder = await temporaryFolder();
    const { databaseFolder, stackFile } = stackLayout(folder);
    for (const lost of ['', '{', '[]', '{"pid":"1"}']) {
      await writeFile(stackFile, lost);
      expect(readStackFile(stackFile)).toBeNull();
    }
    const server = spawn('bash', ['-c', 'read -r', `--datadir=${databaseFolder}.new`]);
    onTestFinished(() => void server.kill('SIGKILL'));
    const identity = identityOf(server.pid!)!;
    await vi.waitFor(async () => expect(await readFile(`/proc/${server.pid}/cmdline`, 'utf8')).toContain('--datadir'));
    const reader = spawn('bash', ['-c', 'read -r', stackLayout(folder).temporalDatabase]);
    onTestFinished(() => void reader.kill('SIGKILL'));
    await vi.waitFor(async () => expect(await readFile(`/proc/${reader.pid}/cmdline`, 'utf8')).toContain('sqlite'));
    expect(await endLeftovers(stackFile)).toEqual(['database']);
    expect(isRunning(identity)).toBe(false);
    expect(isRunning(identityOf(reader.pid!)!)).toBe(true);
  });

  test('a child whose log cannot be had is tried again like one that died', async () => {
    const folder = await temporaryFolder();
    const { clock } = testSeams();
    const spec: ChildSpec = {
      name: 'logless',
      command: node,
      args: ['-e', 'process.send({ready: true}); setInterval(() => undefined, 1000)'],
      environment: {},
      readiness: { kind: 'message' },
      graceMs: 1000,
    };
    const child = new Child(spec, path.join(folder, 'later', 'log'), clock, () => undefined);
    child.start();
    await vi.waitFor(() => expect(child.status().restarts).toBeGreaterThan(1), { timeout: 5000 });
    expect(child.status().lastExit).toContain('ENOENT');
    await mkdir(path.join(folder, 'later'));
    expect(await child.whenReady(10_000)).toBe(true);
    await child.stop();
  });

  test('a log that grew too long is kept once and goes on at its beginning', async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, 'log');
    await keepShort(file, 10);
    const writer = spawn('sh', ['-c', `exec >> ${file}; echo 0123456789; read x; echo after`], {
      stdio: ['pipe', 'inherit', 'inherit'],
    });
    await vi.waitFor(async () => expect((await stat(file)).size).toBe(11));
    await keepShort(file, 11);
    expect((await stat(file)).size).toBe(11);
    await keepShort(file, 10);
    writer.stdin.end('\n');
    await once(writer, 'exit');
    expect([await readFile(file, 'utf8'), await readFile(`${file}.1`, 'utf8')]).toEqual(['after\n', '0123456789\n']);
  });

  test('a configuration that cannot be read for a while is followed afterwards', async () => {
    const folder = await temporaryFolder();
    const file = path.join(folder, 'machine.json');
    const stop = new AbortController();
    const seen: (string | null)[] = [];
    const troubles: unknown[] = [];
    const apply = async (digest: string | null): Promise<void> => void seen.push(digest);
    await mkdir(file);
    const { clock } = testSeams();
    const watching = watchConfiguration(file, null, clock, stop.signal, (error) => troubles.push(error), apply);
    await vi.waitFor(() => expect(troubles.length).toBeGreaterThan(0), { timeout: 5000 });
    await rmdir(file);
    await appendFile(file, '{}');
    await vi.waitFor(() => expect(seen).toHaveLength(1), { timeout: 5000 });
    stop.abort();
    await watching;
  });

  test('a state folder too long for sockets is refused before anything is made', async () => {
    const stateFolder = path.join(tmpdir(), 'x'.repeat(120));
    await expect(startWithoutTools(stateFolder)).rejects.toMatchObject({ code: 'BAD_CONFIG' });
    expect(existsSync(stateFolder)).toBe(false);
  });

  test('in the longest folder there is room for the socket of any repository lane', async () => {
    const folder = path.join(await temporaryFolder(), 'x'.repeat(80));
    const fits = (length: number): boolean => {
      try {
        assertSocketPathsFit(stackLayout(folder.slice(0, length)));
        return true;
      } catch {
        return false;
      }
    };
    let length = folder.length;
    while (!fits(length)) length -= 1;
    const { runFolder } = stackLayout(folder.slice(0, length));
    await mkdir(runFolder, { recursive: true });
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path.join(runFolder, `target.${'r'.repeat(32)}.sock.31`), resolve);
    });
    await new Promise((resolve) => server.close(resolve));
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
    const [ticks, boot] = identity.startTicks.split('-');
    for (const startTicks of [`${Number(ticks) - 1}-${boot}`, `${ticks}-00000000`])
      signalProcess({ ...identity, startTicks }, 'SIGKILL');
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

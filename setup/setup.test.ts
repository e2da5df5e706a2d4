/** The set-up in a copy of its folder, with stand-ins for everything that would change the machine. */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmod, copyFile, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { rootFolder } from './locate.mjs';

const asRoot = process.getuid?.() === 0;
/** As somebody who is not root, whoever runs the tests. */
const user = asRoot ? { uid: 65_534, gid: 65_534 } : {};
const plainTools = ['sh', 'env', 'chmod', 'mkdir', 'sleep', 'true'];
let root: string;
let bin: string;
const started: ChildProcess[] = [];

beforeEach(async () => {
  root = await mkdtemp(path.join(tmpdir(), 'td-setup-'));
  bin = path.join(root, 'stand-ins');
  await mkdir(bin);
  await cp(path.join(rootFolder, 'setup'), path.join(root, 'setup'), { recursive: true });
  for (const file of ['package.json', 'package-lock.json'])
    await copyFile(path.join(rootFolder, file), path.join(root, file));
  await mkdir(path.join(root, 'cache'));
  await mkdir(path.join(root, 'node_modules/.bin'), { recursive: true });
  for (const tool of plainTools) await standIn(tool, `exec /bin/${tool} "$@"`);
  await standIn('npm', makes('node_modules/.bin/node'));
  await standIn('go', makesFile('$GOBIN/temporal'));
  await standIn(
    'apt-get',
    `case "$*" in *install*) for t in qemu-img qemu-storage-daemon; do ${makesFile(`${bin}/$t`)}; done;; esac`,
  );
  for (const folder of ['', 'stand-ins', 'cache', 'node_modules', 'node_modules/.bin'])
    await chmod(path.join(root, folder), 0o777);
});
afterEach(async () => {
  for (const child of started.splice(0)) child.kill('SIGKILL');
  await rm(root, { recursive: true, force: true });
});

/** Each says in `calls` how it was called, then does what `script` says. */
async function standIn(tool: string, script: string): Promise<void> {
  const note = plainTools.includes(tool) ? '' : `echo "${tool} $*" >> ${root}/calls`;
  await writeFile(path.join(bin, tool), `#!/bin/sh\n${note}\n${script}\n`, { mode: 0o755 });
}
const makesFile = (file: string): string => `printf '#!/bin/sh\\n' > ${file} && chmod 755 ${file}`;
const makes = (file: string): string => makesFile(`${root}/${file}`);

type Ended = { code: number | null; said: string };
function start(environment: Record<string, string> = {}): { process: ChildProcess; ended: Promise<Ended> } {
  const env = { PATH: bin, HOME: root, XDG_CACHE_HOME: path.join(root, 'cache'), ...environment };
  const args = [path.join(root, 'setup/setup.mjs'), '--for', 'run'];
  const child = spawn(process.execPath, args, { env, ...user, cwd: root, stdio: ['ignore', 'pipe', 'pipe'] });
  started.push(child);
  let said = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data: Buffer) => (said += data.toString()));
  return { process: child, ended: once(child, 'close').then(([code]) => ({ code: code as number | null, said })) };
}
const run = (): Promise<Ended> => start().ended;
const calls = (): Promise<string> => readFile(path.join(root, 'calls'), 'utf8').catch(() => '');

test('who is neither root nor may use sudo is told the exact command', async () => {
  const { code, said } = await run();
  expect(said).toContain('sudo apt-get install -y --no-install-recommends qemu-utils qemu-system-common');
  expect(code).toBe(2);
  expect(await calls()).not.toContain('apt-get');
});

test('through sudo it brings what is missing, says what and how long, and does nothing the next time', async () => {
  await standIn('sudo', 'shift; exec "$@"');
  const { code, said } = await run();
  expect(said).toMatch(/installing qemu-utils, qemu-system-common \(10-60 s\)/);
  expect(said).toMatch(/building temporal v[\d.]+ with Go \(3-6 min/);
  expect(code).toBe(0);
  const first = await calls();
  expect(first).toMatch(
    /apt-get update[^]*apt-get [^\n]*install -y --no-install-recommends qemu-utils qemu-system-common/,
  );
  const again = await run();
  expect(again.said).toMatch(/^setup: everything for run is there \([\d.]+ s\)\n$/);
  expect(await calls()).toBe(first);
  expect(await readdir(path.join(root, 'cache/tidemark'))).toEqual(['bin']);
});

test('packages of npm are installed when there are none, and npm that is missing is named', async () => {
  await standIn('sudo', 'shift; exec "$@"');
  await rm(path.join(bin, 'npm'));
  const without = await run();
  expect(without.said).toMatch(/npm is not installed/);
  expect(without.code).toBe(2);
  await standIn('npm', makes('node_modules/.bin/node'));
  const { code, said } = await run();
  expect(said).toContain('installing the npm packages');
  expect(code).toBe(0);
});

test('a system without apt-get is told the packages; a go that fails gives way to the download', async () => {
  await rm(path.join(bin, 'apt-get'));
  const without = await run();
  expect(without.said).toContain('this system has no apt-get');
  expect(without.code).toBe(2);
  for (const tool of ['qemu-img', 'qemu-storage-daemon']) await standIn(tool, '');
  await standIn('go', 'echo no network >&2; exit 1');
  const node = path.join(root, 'node_modules/.bin/node');
  await writeFile(node, `#!/bin/sh\nmkdir $3/x; ${makesFile('$3/x/temporal-cli')}\n`, { mode: 0o755 });
  const { code, said } = await run();
  expect(said).toMatch(/the build failed, downloading instead: .*\n.*downloading temporal/);
  expect(code).toBe(0);
});

test('a lock whose pid another process has by now does not hold it up', async () => {
  for (const tool of ['qemu-img', 'qemu-storage-daemon']) await standIn(tool, '');
  const lock = path.join(root, 'cache/tidemark/setup.lock');
  await mkdir(lock, { recursive: true });
  for (const folder of [path.dirname(lock), lock]) await chmod(folder, 0o777);
  await writeFile(path.join(lock, 'pid'), String(process.pid));
  expect(await run()).toMatchObject({ code: 0 });
});

test('two at once: the second waits; one that was killed is taken up, and leaves nothing', async () => {
  for (const tool of ['qemu-img', 'qemu-storage-daemon']) await standIn(tool, '');
  await standIn('go', `sleep 3; ${makesFile('$GOBIN/temporal')}`);
  const killed = start();
  await vi.waitFor(async () => expect(await calls()).toContain('go install'), { timeout: 10_000 });
  killed.process.kill('SIGKILL');
  await killed.ended;
  const both = [start(), start()];
  const ended = await Promise.all(both.map((one) => one.ended));
  expect(ended.map(({ code }) => code)).toEqual([0, 0]);
  expect(ended.filter(({ said }) => said.includes('another set-up runs'))).toHaveLength(1);
  expect((await calls()).match(/go install/g)).toHaveLength(2);
  expect(await readdir(path.join(root, 'cache/tidemark/bin'))).toEqual(['temporal']);
});

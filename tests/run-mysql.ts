/**
 * The catalog's tests against a private MySQL server, where a `mysqld` exists: on PATH, in the system's folders, or named
 * by TIDEMARK_MYSQLD. Exit codes: 0 passed, 1 failed, 2 there is no `mysqld`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { createConnection } from 'mysql2/promise';
import { locateTool } from '../setup/locate.mjs';

const root = path.resolve(import.meta.dirname, '..');
const UP_LIMIT_MS = 60_000;

/** MariaDB installs a `mysqld` too: a link to its own server. */
function findMysqld(): string | null {
  const mysqld = process.env['TIDEMARK_MYSQLD'] ?? locateTool('mysqld');
  if (mysqld === null) return null;
  const { stdout } = spawnSync(mysqld, ['--no-defaults', '--version'], { encoding: 'utf8' });
  return stdout !== null && /MySQL/i.test(stdout) && !/MariaDB/i.test(stdout) ? mysqld : null;
}

async function startServer(mysqld: string, folder: string): Promise<{ server: ChildProcess; socket: string }> {
  const socket = path.join(folder, 's');
  const asRoot = process.getuid?.() === 0 ? ['--user=root'] : [];
  const data = `--datadir=${path.join(folder, 'data')}`;
  const options = ['--no-defaults', data, '--skip-log-bin', '--secure-file-priv=NULL', ...asRoot];
  const made = spawnSync(mysqld, [...options, '--initialize-insecure'], { encoding: 'utf8' });
  if (made.status !== 0) throw new Error(`${mysqld} --initialize-insecure ended with ${made.status}: ${made.stderr}`);
  const server = spawn(mysqld, [...options, `--socket=${socket}`, '--skip-networking', '--mysqlx=OFF'], {
    stdio: ['ignore', 'ignore', 'inherit'],
  });
  process.once('exit', () => server.kill('SIGKILL'));
  await untilUp(server, socket);
  return { server, socket };
}

async function untilUp(server: ChildProcess, socket: string): Promise<void> {
  const deadline = performance.now() + UP_LIMIT_MS;
  for (;;) {
    const connection = await createConnection({ socketPath: socket, user: 'root' }).catch(() => null);
    if (connection) return connection.end();
    if (server.exitCode !== null || performance.now() > deadline) throw new Error('mysqld did not come up');
    await sleep(100);
  }
}

async function runTests(mysqld: string): Promise<number> {
  const folder = await mkdtemp(path.join(tmpdir(), 'td-my-'));
  try {
    const { server, socket } = await startServer(mysqld, folder);
    const url = `mysql://root:@localhost/?socket=${encodeURIComponent(socket)}`;
    const vitest = path.join(root, 'node_modules/.bin/vitest');
    const environment = { ...process.env, TIDEMARK_TEST_MYSQL: url };
    const tests = spawnSync(vitest, ['run', '--project', 'unit', 'schema/catalog', 'activities/resources'], {
      cwd: root,
      stdio: 'inherit',
      env: environment,
    });
    const gone = new Promise((resolve) => server.once('exit', resolve));
    server.kill('SIGTERM');
    await gone;
    return tests.status === 0 ? 0 : 1;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

const mysqld = findMysqld();
if (mysqld === null) {
  console.error('no MySQL server here: put `mysqld` on PATH, or name it: TIDEMARK_MYSQLD=<file> npm run test:mysql');
  process.exitCode = 2;
} else process.exitCode = await runTests(mysqld);

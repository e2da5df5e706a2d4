/**
 * The private MariaDB: made once in the state folder, reached by a Unix socket only. The one account has a random
 * password in a file of mode 0600; `root` is removed, so nobody reaches other databases even with the socket.
 */
import { spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readFile, readlink, rename, rm, writeFile } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { StackLayout } from './layout.ts';
import type { ChildSpec } from './child.ts';
import type { StackTools } from './tools.ts';

export const DATABASE_NAME = 'tidemark';
export const DATABASE_USER = 'tidemark';

const isPassword = /^[0-9a-f]{48}$/;
/** In the order in which MariaDB's own installer feeds them. */
const systemFiles = [
  'mysql_system_tables.sql',
  'mysql_performance_tables.sql',
  'mysql_system_tables_data.sql',
  'maria_add_gis_sp_bootstrap.sql',
  'mysql_sys_schema.sql',
];

function baseArguments(tools: StackTools, dataFolder: string, temporaryFolder: string): string[] {
  return [
    '--no-defaults',
    `--basedir=${path.dirname(path.dirname(tools.mariadbShare))}`,
    `--datadir=${dataFolder}`,
    `--lc-messages-dir=${tools.mariadbShare}`,
    `--character-sets-dir=${path.join(tools.mariadbShare, 'charsets')}`,
    `--plugin-dir=${dataFolder}`,
    `--tmpdir=${temporaryFolder}`,
    '--skip-log-bin',
    // MariaDB refuses to run as root unless told so.
    ...(process.getuid?.() === 0 ? ['--user=root'] : []),
  ];
}

async function bootstrapScript(tools: StackTools, password: string): Promise<string> {
  const files = systemFiles.map((name) => readFile(path.join(tools.mariadbShare, name), 'utf8'));
  return [
    'create database if not exists mysql;',
    'use mysql;',
    'SET @auth_root_socket=NULL;',
    'SET @skip_auth_anonymous=1;',
    ...(await Promise.all(files)),
    // The bootstrap runs without grant tables until they are loaded.
    'FLUSH PRIVILEGES;',
    `CREATE DATABASE ${DATABASE_NAME} CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;`,
    `CREATE USER '${DATABASE_USER}'@'localhost' IDENTIFIED BY '${password}';`,
    `GRANT ALL PRIVILEGES ON ${DATABASE_NAME}.* TO '${DATABASE_USER}'@'localhost';`,
    "DELETE FROM mysql.global_priv WHERE User = 'root' OR User = '';",
    'FLUSH PRIVILEGES;',
    '',
  ].join('\n');
}

/** The lines that say what went wrong, of the many that do not. */
function tellingIn(errors: string): string {
  const lines = errors.split('\n').filter((line) => line.includes('[ERROR]'));
  return (lines.length > 0 ? lines.map((line) => line.replace(/^.*\[ERROR\] /, '')).join('; ') : errors).trim();
}

function feed(command: string, args: string[], script: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'ignore', 'pipe'] });
    let errors = '';
    child.stderr.on('data', (data: Buffer) => (errors = `${errors}${data.toString()}`.slice(-4000)));
    child.stdin.on('error', () => undefined);
    child.once('error', reject);
    child.once('exit', (code) => {
      if (code === 0) resolve();
      else
        reject(
          new TidemarkError('DATABASE_ERROR', `making the database failed: ${tellingIn(errors)}`, { exitCode: code }),
        );
    });
    child.stdin.end(script);
  });
}

function refuseWithoutPassword({ databaseFolder, databasePasswordFile }: StackLayout): void {
  if (existsSync(databasePasswordFile)) return;
  const message = `the password of the database in ${databaseFolder} is gone: put ${databasePasswordFile} back, or move both away`;
  throw new TidemarkError('DATABASE_ERROR', message, { file: databasePasswordFile });
}

/** What was moved away may be put back: its only account has this password, and no other can be given to it. */
async function keepPassword({ databasePasswordFile: file }: StackLayout): Promise<string> {
  const known = await readFile(file, 'utf8').catch(() => '');
  if (isPassword.test(known)) return known;
  const password = randomBytes(24).toString('hex');
  await writeFile(file, password, { mode: 0o600 });
  await chmod(file, 0o600);
  return password;
}

async function refuseBrokenLink(folder: string): Promise<void> {
  const target = await readlink(folder).catch(() => null);
  if (target === null) return;
  const message = `the database in ${folder} lies in ${target}, which is not there: see whether its file system is mounted`;
  throw new TidemarkError('DATABASE_ERROR', message, { folder, target });
}

/** Makes the database unless it is there; it appears under its name only when it is whole. */
export async function prepareDatabase(layout: StackLayout, tools: StackTools): Promise<void> {
  if (existsSync(layout.databaseFolder)) return refuseWithoutPassword(layout);
  await refuseBrokenLink(layout.databaseFolder);
  const making = `${layout.databaseFolder}.new`;
  await rm(making, { recursive: true, force: true });
  await mkdir(making, { recursive: true, mode: 0o700 });
  const password = await keepPassword(layout);
  const args = [...baseArguments(tools, making, making), '--bootstrap', '--skip-networking'];
  await feed(tools.mariadbd, args, await bootstrapScript(tools, password));
  await rename(making, layout.databaseFolder);
}

/** The server speaks first: its greeting names protocol version 10; anything else is a server not ready. */
export function isDatabaseReady(socketPath: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = net.connect(socketPath);
    const end = (answer: boolean): void => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(2000, () => end(false));
    socket.once('error', () => end(false)).once('close', () => end(false));
    socket.once('data', (data) => end(data[4] === 10));
  });
}

export function databaseChild(layout: StackLayout, tools: StackTools): ChildSpec {
  return {
    name: 'database',
    command: tools.mariadbd,
    args: [
      ...baseArguments(tools, layout.databaseFolder, layout.databaseFolder),
      `--socket=${layout.databaseSocket}`,
      `--pid-file=${path.join(layout.runFolder, 'database.pid')}`,
      '--skip-networking',
      '--skip-name-resolve',
      // 99 MB with this; a catalog is small.
      '--innodb-buffer-pool-size=64M',
      '--max-connections=100',
    ],
    environment: {},
    readiness: { kind: 'probe', isReady: () => isDatabaseReady(layout.databaseSocket) },
    graceMs: 20_000,
  };
}

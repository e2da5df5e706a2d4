#!/usr/bin/env node
/**
 * The `tidemark` command. Any Node starts it; it goes on in the Node 24 that npm installed beside it, which runs the
 * TypeScript as it is. Signals and the exit code pass through.
 */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { constants } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { compileCacheFolder } from '../setup/locate.mjs';

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
const node = path.join(root, 'node_modules/.bin/node');

if (!existsSync(node)) {
  console.error('error: Node 24 is not installed beside Tidemark');
  console.error('hint: Run `npm run setup`, which installs it or says the exact command.');
  process.exit(2);
}

// Compiled code is kept: a command starts in half the time. A folder that cannot be written is no harm.
const environment = { NODE_COMPILE_CACHE: compileCacheFolder(), ...process.env };
const before = ['--import', path.join(root, 'cli/bundled-packages.mjs')];
const child = spawn(node, [...before, path.join(root, 'cli/tidemark.ts'), ...process.argv.slice(2)], {
  stdio: 'inherit',
  env: environment,
});
// Ctrl-C reaches the whole group of the terminal by itself; what comes to this process alone is passed on. Without a
// terminal that cannot be told apart, and there a second SIGINT does no harm.
const isTerminal = process.stdin.isTTY && process.stdout.isTTY;
process.on('SIGINT', () => isTerminal || child.kill('SIGINT'));
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
child.on('error', (error) => {
  console.error(`error: cannot start ${node}: ${error.message}`);
  process.exit(1);
});
child.on('exit', (code, signal) => process.exit(signal === null ? code : 128 + constants.signals[signal]));

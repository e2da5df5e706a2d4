/** What every step of the set-up uses: saying, running, and becoming root where that is possible. */
import { spawnSync } from 'node:child_process';
import { locateTool } from '../locate.mjs';

export const say = (text) => console.log(`setup: ${text}`);

/** A reason to stop that the user can act on: printed as it is, exit code 2. */
export class SetupStop extends Error {}

/** Runs to its end, showing its output only when it fails. Returns standard output. */
export function run(command, args, options = {}) {
  const result = spawnSync(command, args, {
    encoding: 'utf8',
    maxBuffer: 256 * 1024 * 1024,
    stdio: ['ignore', 'pipe', 'pipe'],
    ...options,
  });
  if (result.error) throw result.error;
  if (result.status !== 0) {
    const output = `${result.stdout ?? ''}${result.stderr ?? ''}`.slice(-4000);
    throw new Error(`${command} ${args.join(' ')} ended with ${result.status ?? result.signal}\n${output}`);
  }
  return result.stdout;
}

export function succeeds(command, args) {
  return spawnSync(command, args, { stdio: 'ignore' }).status === 0;
}

/** Words to put before a command that needs root; null when root is out of reach without a password. */
export function rootPrefix() {
  if (process.getuid?.() === 0) return [];
  return locateTool('sudo') && succeeds('sudo', ['-n', 'true']) ? ['sudo', '-n'] : null;
}

/** Runs as root; the environment goes along by `env`, which sudo would else clear. */
export function runAsRoot(words) {
  const full = [...rootPrefix(), 'env', 'DEBIAN_FRONTEND=noninteractive', ...words];
  return run(full[0], full.slice(1));
}

/**
 * setup.mjs --for run|test: brings everything an embedded run (or the tests as well) needs, and does nothing where
 * nothing is missing. Runs on Node 20; what it makes itself goes to ~/.cache/tidemark (or $XDG_CACHE_HOME).
 * Exit codes: 0 all is there, 1 a step failed, 2 something must be done by hand (the command is printed).
 */
import { say, SetupStop } from './steps/shell.mjs';
import { withLock } from './steps/lock.mjs';
import { buildGuestImage } from './steps/guest-image.mjs';
import { installNpmPackages } from './steps/npm-packages.mjs';
import { bundlePackages } from './steps/package-bundle.mjs';
import { installSystemPackages } from './steps/system-packages.mjs';
import { installTemporal } from './steps/temporal.mjs';

function readPurpose(args) {
  const [flag, purpose] = args;
  if (args.length === 2 && flag === '--for' && (purpose === 'run' || purpose === 'test')) return purpose;
  throw new SetupStop('usage: node setup/setup.mjs --for run|test');
}

try {
  const purpose = readPurpose(process.argv.slice(2));
  const startedAt = Date.now();
  await withLock(() => {
    installNpmPackages();
    bundlePackages();
    installSystemPackages(purpose);
    installTemporal();
    if (purpose === 'test') buildGuestImage();
  });
  say(`everything for ${purpose} is there (${((Date.now() - startedAt) / 1000).toFixed(1)} s)`);
} catch (error) {
  // What the system refused (no space, no permission) is told by its message; a stack would hide it.
  const isPlain = error instanceof SetupStop || error.syscall !== undefined;
  console.error(`setup: ${isPlain ? error.message : (error.stack ?? error)}`);
  process.exitCode = error instanceof SetupStop ? 2 : 1;
}

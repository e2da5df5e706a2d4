/** Packages of the operating system: what is missing is found by its files, so a run without lack costs nothing. */
import { existsSync } from 'node:fs';
import { locateMariadbShare, locateTool } from '../locate.mjs';
import { rootPrefix, runAsRoot, say, SetupStop } from './shell.mjs';

const tool = (name) => () => locateTool(name) !== null;

/** Each package with the proof that it is there. */
const packages = {
  run: [
    ['mariadb-server-core', () => locateTool('mariadbd') !== null && locateMariadbShare() !== null],
    ['qemu-utils', tool('qemu-img')],
    ['qemu-system-common', tool('qemu-storage-daemon')],
  ],
  test: [
    ['qemu-system-x86', tool('qemu-system-x86_64')],
    ['qemu-guest-agent', tool('qemu-ga')],
    ['busybox-static', () => existsSync('/usr/share/doc/busybox-static') && tool('busybox')()],
    ['cpio', tool('cpio')],
    ['e2fsprogs', tool('mkfs.ext4')],
    ['libnbd-bin', tool('nbdinfo')],
  ],
};

let updated = false;

/** At most one `apt-get update` per run, and only when something is to be fetched. */
export function updatePackageLists() {
  if (updated) return;
  if (rootPrefix() === null) {
    throw new SetupStop('the package lists are missing; run this, then the set-up again:\n  sudo apt-get update');
  }
  say('updating the package lists (about 10 s)');
  runAsRoot(['apt-get', 'update', '-q']);
  updated = true;
}

export function installSystemPackages(purpose) {
  const wanted = purpose === 'test' ? [...packages.run, ...packages.test] : packages.run;
  const missing = wanted.filter(([, isThere]) => !isThere()).map(([name]) => name);
  if (missing.length === 0) return;
  const command = `apt-get install -y --no-install-recommends ${missing.join(' ')}`;
  if (locateTool('apt-get') === null) {
    throw new SetupStop(`this system has no apt-get; install what these Debian packages hold: ${missing.join(' ')}`);
  }
  if (rootPrefix() === null) {
    throw new SetupStop(`${missing.join(', ')} missing; run this, then the set-up again:\n  sudo ${command}`);
  }
  updatePackageLists();
  say(`installing ${missing.join(', ')} (10-60 s)`);
  // A fresh machine may be in the middle of its own updates: their lock is waited for.
  runAsRoot(command.replace('apt-get', 'apt-get -o DPkg::Lock::Timeout=300').split(' '));
  const still = wanted.filter(([name, isThere]) => missing.includes(name) && !isThere()).map(([name]) => name);
  if (still.length > 0) throw new Error(`installed, but still not found: ${still.join(', ')}`);
}

/**
 * Kernel and initrd of the test guest, from the distribution's own packages: the kernel image is unpacked, not
 * installed; the initrd holds busybox, the guest agent with its libraries, and the modules virtio needs.
 */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { cacheFolder, guestFiles, locateTool, rootFolder } from '../locate.mjs';
import { run, say, SetupStop } from './shell.mjs';
import { updatePackageLists } from './system-packages.mjs';

/** In the order in which they can be loaded. */
const modules = [
  'virtio_ring',
  'virtio',
  'virtio_pci_modern_dev',
  'virtio_pci_legacy_dev',
  'virtio_pci',
  'virtio_blk',
  'virtio_console',
];

/** The metapackage names the current kernel: linux-image-6.1.0-56-cloud-amd64. */
function currentKernelPackage() {
  const depends = run('apt-cache', ['depends', 'linux-image-cloud-amd64']);
  return /Depends: (linux-image-\S+-cloud-amd64)/.exec(depends)?.[1] ?? null;
}

function findKernelPackage() {
  const known = (() => {
    try {
      return currentKernelPackage();
    } catch {
      return null;
    }
  })();
  if (known !== null) return known;
  updatePackageLists();
  const name = currentKernelPackage();
  if (name === null) throw new SetupStop('this distribution offers no linux-image-cloud-amd64 for the test guest');
  return name;
}

function downloadKernel(name, folder) {
  try {
    run('apt-get', ['download', name], { cwd: folder });
  } catch {
    // The lists are older than the mirror.
    updatePackageLists();
    run('apt-get', ['download', findKernelPackage()], { cwd: folder });
  }
}

function unpackKernel(files) {
  if (existsSync(files.kernel) && existsSync(files.modules)) return;
  say('fetching the kernel of the test guest (27 MB, 5-30 s)');
  const folder = mkdtempSync(path.join(cacheFolder(), 'making-'));
  try {
    downloadKernel(findKernelPackage(), folder);
    const deb = readdirSync(folder).find((name) => name.endsWith('.deb'));
    run('dpkg-deb', ['-x', path.join(folder, deb), path.join(folder, 'root')]);
    const boot = path.join(folder, 'root/boot');
    const image = readdirSync(boot).find((name) => name.startsWith('vmlinuz'));
    const lib = [path.join(folder, 'root/lib/modules'), path.join(folder, 'root/usr/lib/modules')].find(existsSync);
    const all = readdirSync(lib, { recursive: true });
    const picked = path.join(folder, 'modules');
    mkdirSync(picked);
    for (const module of modules) {
      const found = all.find((name) => path.basename(name) === `${module}.ko`);
      if (!found) throw new Error(`the kernel package has no module ${module}`);
      copyFileSync(path.join(lib, found), path.join(picked, `${module}.ko`));
    }
    rmSync(files.modules, { recursive: true, force: true });
    renameSync(picked, files.modules);
    renameSync(path.join(boot, image), files.kernel);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Libraries of a program as the loader finds them, the loader itself included. */
const librariesOf = (program) => [...run('ldd', [program]).matchAll(/(\/\S+) \(0x/g)].map((match) => match[1]);

function fillInitrd(root, files) {
  for (const folder of ['bin', 'modules']) mkdirSync(path.join(root, folder), { recursive: true });
  const put = (from, to, mode = 0o755) => {
    mkdirSync(path.dirname(path.join(root, to)), { recursive: true });
    copyFileSync(realpathSync(from), path.join(root, to));
    chmodSync(path.join(root, to), mode);
  };
  put(locateTool('busybox'), 'bin/busybox');
  put(path.join(rootFolder, 'setup/guest/init'), 'init');
  put(path.join(rootFolder, 'setup/guest/record-writer'), 'bin/record-writer');
  const agent = locateTool('qemu-ga');
  put(agent, 'bin/qemu-ga');
  for (const library of librariesOf(agent)) put(library, library);
  for (const module of modules) put(path.join(files.modules, `${module}.ko`), `modules/${module}.ko`, 0o644);
  writeFileSync(path.join(root, 'modules/order'), `${modules.join('\n')}\n`);
}

function buildInitrd(files) {
  if (existsSync(files.initrd)) return;
  say('building the initrd of the test guest (about 1 s)');
  const folder = mkdtempSync(path.join(cacheFolder(), 'making-'));
  try {
    const root = path.join(folder, 'root');
    fillInitrd(root, files);
    const made = path.join(folder, 'initrd.gz');
    const pack = `set -o pipefail; find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0 | gzip -1 > '${made}'`;
    const result = spawnSync('bash', ['-c', pack], { cwd: root, encoding: 'utf8' });
    if (result.status !== 0) throw new Error(`packing the initrd failed: ${result.stderr}`);
    renameSync(made, files.initrd);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

export function buildGuestImage() {
  const files = guestFiles();
  if (existsSync(files.initrd) && existsSync(files.kernel)) return;
  if (process.arch !== 'x64') {
    say('the test guest is built for x86-64 only: tests with a guest are left out');
    return;
  }
  mkdirSync(files.folder, { recursive: true });
  unpackKernel(files);
  buildInitrd(files);
}

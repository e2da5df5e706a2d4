/**
 * Where the tools lie that Tidemark runs: `temporal`, `mariadbd`, QEMU's, and the kernel and initrd of the test guest.
 * Plain JavaScript because the set-up runs before Node 24 is there; `locate.d.mts` has the types.
 */
import { createHash } from 'node:crypto';
import { accessSync, constants, existsSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';

export const rootFolder = path.resolve(import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname), '..');
export const cacheFolder = () => path.join(process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'tidemark');
/** Of compiled JavaScript, for NODE_COMPILE_CACHE. */
export const compileCacheFolder = () => path.join(cacheFolder(), 'compiled');
export const toolCacheFolder = () => path.join(cacheFolder(), 'bin');

function isExecutable(file) {
  try {
    accessSync(file, constants.X_OK);
    return statSync(file).isFile();
  } catch {
    return false;
  }
}

/** Full path of a tool: PATH, then the system folders a user's PATH often lacks, then the cache; else null. */
export function locateTool(name) {
  const onPath = (process.env.PATH ?? '').split(':').filter((folder) => folder !== '');
  const folders = [...onPath, '/usr/local/sbin', '/usr/sbin', '/sbin', '/usr/libexec', toolCacheFolder()];
  return folders.map((folder) => path.join(folder, name)).find(isExecutable) ?? null;
}

/** Packages that commands load as single files (`setup/steps/package-bundle.mjs`): `name` with "__" for "/" + ".mjs". */
export function packageBundle() {
  const folder = path.join(rootFolder, 'node_modules/.tidemark-packages');
  const packages = ['@temporalio/client', '@temporalio/common', 'commander', 'kysely', 'kysely/migration', 'mysql2'];
  return {
    folder,
    packages: [...packages, 'mysql2/promise', 'yaml', 'zod'],
    stampFile: path.join(folder, 'stamp'),
    /** Made from these versions by this recipe. */
    stamp: () => {
      const hash = createHash('sha256');
      for (const name of ['package-lock.json', 'setup/steps/package-bundle.mjs', 'setup/locate.mjs'])
        hash.update(readFileSync(path.join(rootFolder, name)));
      return hash.digest('hex');
    },
  };
}

/** Folder with the SQL files that make MariaDB's own tables, else null. */
export function locateMariadbShare() {
  const folders = ['/usr/share/mysql', '/usr/share/mariadb', '/usr/local/share/mysql'];
  return folders.find((folder) => existsSync(path.join(folder, 'mysql_system_tables.sql'))) ?? null;
}

/** The initrd's folder carries a digest of everything it is made from, so a changed recipe is built anew. */
export function guestFiles() {
  const recipe = ['init', 'record-writer'].map((name) => readFileSync(path.join(rootFolder, 'setup/guest', name)));
  const builder = readFileSync(path.join(rootFolder, 'setup/steps/guest-image.mjs'));
  const hash = createHash('sha256');
  for (const part of [...recipe, builder]) hash.update(part);
  const folder = path.join(cacheFolder(), 'guest');
  return {
    folder,
    kernel: path.join(folder, 'vmlinuz'),
    modules: path.join(folder, 'modules'),
    initrd: path.join(folder, `initrd-${hash.digest('hex').slice(0, 12)}.gz`),
  };
}

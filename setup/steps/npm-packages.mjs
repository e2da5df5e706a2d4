/** The npm packages, Node 24 among them. A stamp inside node_modules holds the digest of the lock file it was made from. */
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { locateTool, rootFolder } from '../locate.mjs';
import { run, say, SetupStop } from './shell.mjs';

const modules = path.join(rootFolder, 'node_modules');
const stampFile = path.join(modules, '.tidemark-setup');
const newNode = path.join(modules, '.bin/node');

const digestOf = (file) => createHash('sha256').update(readFileSync(file)).digest('hex');
const stamped = () => (existsSync(stampFile) ? readFileSync(stampFile, 'utf8').trim() : '');

/** npm's own record of what lies in node_modules: newer than the lock file means that npm brought it up to date. */
function matchesByNpmRecord() {
  const record = path.join(modules, '.package-lock.json');
  if (!existsSync(record)) return false;
  const installed = JSON.parse(readFileSync(record, 'utf8')).packages;
  const wanted = JSON.parse(readFileSync(path.join(rootFolder, 'package-lock.json'), 'utf8')).packages;
  return Object.entries(wanted).every(
    ([name, entry]) => name === '' || entry.optional || installed[name]?.version === entry.version,
  );
}

function writeStamp(digest) {
  writeFileSync(`${stampFile}.${process.pid}`, `${digest}\n`);
  renameSync(`${stampFile}.${process.pid}`, stampFile);
}

export function installNpmPackages() {
  const digest = digestOf(path.join(rootFolder, 'package-lock.json'));
  if (existsSync(newNode) && stamped() === digest) return;
  if (existsSync(newNode) && matchesByNpmRecord()) return writeStamp(digest);
  if (locateTool('npm') === null) {
    throw new SetupStop(
      'npm is not installed; install it (Debian: sudo apt-get install npm), then run the set-up again',
    );
  }
  say('installing the npm packages, Node 24 among them (20-60 s)');
  run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: rootFolder });
  if (!existsSync(newNode)) {
    throw new Error(`npm installed no Node for ${process.platform} ${process.arch}; see optionalDependencies`);
  }
  writeStamp(digest);
}

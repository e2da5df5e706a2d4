/** Temporal's command line, whose development server the embedded stack runs: found, built by Go, or downloaded. */
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { locateTool, rootFolder, toolCacheFolder } from '../locate.mjs';
import { run, say, succeeds } from './shell.mjs';

const VERSION = 'v1.5.1';

function build(folder) {
  const args = ['install', '-trimpath', `github.com/temporalio/cli/cmd/temporal@${VERSION}`];
  run('go', args, { env: { ...process.env, GOBIN: folder, CGO_ENABLED: '0' } });
  return path.join(folder, 'temporal');
}

function download(folder) {
  const node = path.join(rootFolder, 'node_modules/.bin/node');
  run(node, [path.join(rootFolder, 'setup/steps/download-temporal.mjs'), VERSION, folder], { cwd: rootFolder });
  const files = readdirSync(folder, { recursive: true }).map((name) => path.join(folder, name));
  const found = files.find((file) => statSync(file).isFile() && path.basename(file).startsWith('temporal'));
  if (!found) throw new Error(`the download left no temporal in ${folder}`);
  return found;
}

/** The first way that works; each is tried only where the one before cannot or did not. */
function obtain(folder) {
  if (locateTool('go') !== null) {
    say(`building temporal ${VERSION} with Go (3-6 min, once; it stays in ${toolCacheFolder()})`);
    try {
      return build(folder);
    } catch (error) {
      say(`the build failed, downloading instead: ${String(error.message).split('\n').slice(0, 3).join(' | ')}`);
    }
  }
  say(`downloading temporal ${VERSION} (10-60 s)`);
  return download(folder);
}

export function installTemporal() {
  if (locateTool('temporal') !== null) return;
  mkdirSync(toolCacheFolder(), { recursive: true });
  const folder = mkdtempSync(path.join(toolCacheFolder(), 'making-'));
  try {
    const made = obtain(folder);
    chmodSync(made, 0o755);
    if (!succeeds(made, ['--version'])) throw new Error(`${made} does not run`);
    renameSync(made, path.join(toolCacheFolder(), 'temporal'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

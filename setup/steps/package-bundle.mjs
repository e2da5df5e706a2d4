/**
 * The packages that commands load, each a single file in node_modules/.tidemark-packages: a command would else look up
 * and read a thousand small files first, which takes longer than what it is called for. Left out where it cannot be made.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { packageBundle, rootFolder } from '../locate.mjs';
import { say } from './shell.mjs';

/** A CommonJS package keeps the names by which it is imported only when they are written out. */
const builder = `
import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { rolldown } from 'rolldown';
const [folder, ...names] = process.argv.slice(1);
const entries = path.join(folder, 'entries');
mkdirSync(entries);
const input = {};
for (const name of names) {
  const exported = Object.keys(await import(name));
  const own = exported.filter((each) => /^[A-Za-z_$][\\w$]*$/.test(each) && each !== 'default');
  const lines = exported.includes('module.exports')
    ? ['import all from "' + name + '";', 'export default all;', ...own.map((each) => 'export const ' + each + ' = all.' + each + ';')]
    : ['export * from "' + name + '";'];
  const file = name.replaceAll('/', '__');
  input[file] = path.join(entries, file + '.mjs');
  writeFileSync(input[file], lines.join('\\n'));
}
const bundle = await rolldown({ input, platform: 'node', cwd: folder, logLevel: 'silent', preserveEntrySignatures: 'strict' });
await bundle.write({ dir: folder, format: 'esm', entryFileNames: '[name].mjs', chunkFileNames: '[hash].mjs' });
rmSync(entries, { recursive: true });
`;

export function bundlePackages() {
  const { folder, stampFile, stamp, packages } = packageBundle();
  if (existsSync(stampFile) && readFileSync(stampFile, 'utf8') === stamp()) return;
  say('bundling the packages that commands load (2-5 s)');
  const fresh = `${folder}.${process.pid}`;
  mkdirSync(fresh, { recursive: true });
  try {
    execFileSync(
      path.join(rootFolder, 'node_modules/.bin/node'),
      ['--input-type=module', '-e', builder, fresh, ...packages],
      { cwd: rootFolder, stdio: ['ignore', 'ignore', 'pipe'] },
    );
    writeFileSync(path.join(fresh, path.basename(stampFile)), stamp());
    rmSync(folder, { recursive: true, force: true });
    renameSync(fresh, folder);
  } catch (error) {
    rmSync(fresh, { recursive: true, force: true });
    say(
      `the packages could not be bundled, commands start slower: ${String(error.stderr ?? error.message).slice(0, 400)}`,
    );
  }
}

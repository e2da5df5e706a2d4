/**
 * Loaded before the command: packages come from the files that the set-up bundled, where it did. All come from there or
 * none, so that nothing is loaded twice.
 */
import { existsSync } from 'node:fs';
import { registerHooks } from 'node:module';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { packageBundle } from '../setup/locate.mjs';

const { folder, packages, stampFile } = packageBundle();
const bundled = new Map(
  packages.map((name) => [name, pathToFileURL(path.join(folder, `${name.replaceAll('/', '__')}.mjs`)).href]),
);

if (existsSync(stampFile))
  registerHooks({
    resolve(specifier, context, next) {
      const url = bundled.get(specifier);
      return url === undefined ? next(specifier, context) : { url, format: 'module', shortCircuit: true };
    },
  });

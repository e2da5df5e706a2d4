import { configDefaults, defineConfig } from 'vitest/config';
import { compileCacheFolder } from './setup/locate.mjs';
import { SideBySide } from './tests/side-by-side.ts';
import { leftToOthers } from './tests/taking-turns.ts';

// Tests start hundreds of processes and threads: compiled once, each is up in half the time. Threads take it only from a
// process that had it from its start.
process.env['NODE_COMPILE_CACHE'] ??= compileCacheFolder();
const exclude = [...configDefaults.exclude, ...leftToOthers(process.env)];
const fork = { pool: 'forks' as const, environment: 'node' as const, exclude };

/** Unit and contract tests lie beside what they test; whole-product tests lie in tests/. */
export default defineConfig({
  test: {
    // Most tests wait for processes of their own more than they compute.
    maxWorkers: 3,
    sequence: { sequencer: SideBySide },
    projects: [
      {
        test: {
          ...fork,
          name: 'unit',
          include: [
            '{schema,engines,workflows,activities,workers,cli,setup}/**/*.test.ts',
            'tests/{house,fuzz}/**/*.test.ts',
          ],
          testTimeout: 90_000,
          hookTimeout: 60_000,
        },
      },
      {
        test: {
          ...fork,
          name: 'whole',
          include: ['tests/{end-to-end,crash}/**/*.test.ts'],
          testTimeout: 240_000,
          hookTimeout: 240_000,
        },
      },
    ],
  },
});

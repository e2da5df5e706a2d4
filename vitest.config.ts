import { defineConfig } from 'vitest/config';

const fork = { pool: 'forks' as const, environment: 'node' as const };

/** Unit and contract tests lie beside what they test; whole-product tests lie in tests/. */
export default defineConfig({
  test: {
    projects: [
      {
        test: {
          ...fork,
          name: 'unit',
          include: ['{schema,engines,workflows,activities,workers,cli,setup}/**/*.test.ts', 'tests/house/**/*.test.ts'],
          testTimeout: 30_000,
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
          fileParallelism: false,
        },
      },
    ],
  },
});

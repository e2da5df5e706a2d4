import { tmpdir } from 'node:os';
import path from 'node:path';
import { defineConfig } from 'vitest/config';
import { BaseSequencer, type TestSpecification } from 'vitest/node';

const fork = {
  pool: 'forks' as const,
  environment: 'node' as const,
  // Tests start hundreds of processes: compiled once, each is up in half the time.
  env: { NODE_COMPILE_CACHE: path.join(tmpdir(), 'node-compile-cache') },
};

/** The longest files first, so that no processor waits for one of them at the end. */
class WholeFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const place = ({ moduleId }: TestSpecification): number =>
      ['/tests/crash/', '/tests/end-to-end/', ''].findIndex((part) => moduleId.includes(part));
    return (await super.sort(files)).toSorted((one, other) => place(one) - place(other));
  }
}

/** Unit and contract tests lie beside what they test; whole-product tests lie in tests/. */
export default defineConfig({
  test: {
    // Most tests wait for processes of their own more than they compute.
    maxWorkers: 3,
    sequence: { sequencer: WholeFirst },
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
        },
      },
    ],
  },
});

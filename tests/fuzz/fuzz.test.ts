import path from 'node:path';
import { expect, test } from 'vitest';
import { seeded } from '../fixtures/mover/disks.ts';
import { fuzz, fuzzMs } from './fuzz.ts';
import { repositoryTargets } from './repository-targets.ts';
import { sealedTargets } from './sealed-targets.ts';
import { wireTargets } from './wire-targets.ts';

const corpus = path.join(import.meta.dirname, 'corpus');

test.each([...repositoryTargets, ...sealedTargets, ...wireTargets])(
  '$name',
  { timeout: 30_000 + 30 * fuzzMs },
  (target) => {
    const { rounds, accepted } = fuzz(target, corpus, seeded().seed);
    console.log(`${target.name}: ${accepted} of ${rounds} inputs accepted`);
    // Fuzzing that accepts nothing has judged sums only.
    expect(accepted).toBeGreaterThan(0);
  },
);

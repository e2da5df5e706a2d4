/**
 * Random lives of a repository in which nothing is ever at rest: whatever a collection does between any two calls, what is
 * sealed is there, and what was promised can be committed.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { randomFrom, seeded } from '../../../tests/fixtures/mover/disks.ts';
import { KEY_FILE } from '../../../tests/fixtures/repository/keys.ts';
import type { Secret } from '../../../schema/repository/secrets.ts';
import { CollectionModel } from '../../../tests/fixtures/repository/collection-model.ts';

/** Lives that once ended badly. */
const KEPT_SEEDS: readonly number[] = [556_344_684];
/** Lives in which most is kept: many packs are merged. */
const MERGING_SEEDS: readonly number[] = [16];
const LIVES = Number(process.env['TIDEMARK_MODEL_LIVES'] ?? 2);
const ACTS = 400;

type Life = { seed: number; secret: Secret | null; keepsMost: boolean };

async function live({ seed, secret, keepsMost }: Life): Promise<CollectionModel['done']> {
  const folder = await mkdtemp(join(tmpdir(), 'td-collection-'));
  const model = new CollectionModel(randomFrom(seed), join(folder, 'index'), secret, keepsMost);
  const acts: string[] = [];
  try {
    await model.open();
    for (let act = 0; act < ACTS; act += 1) {
      acts.push(await model.act());
      if (act % 4 === 0) await model.check();
    }
    expect(await model.endOfAll()).toEqual([]);
    return model.done;
  } catch (error) {
    throw new Error(
      `seed ${seed}${keepsMost ? ', most kept' : ''}, after ${acts.length} acts, the last: ${acts.slice(-12).join('; ')}`,
      {
        cause: error,
      },
    );
  } finally {
    await rm(folder, { recursive: true });
  }
}

test(
  'whatever happens beside a collection, what is sealed is there, and in the end what is dead is gone',
  { timeout: 120_000 },
  async () => {
    const { next } = seeded();
    const some = (): number[] => Array.from({ length: LIVES }, () => next(2 ** 31));
    const lives = [
      ...[...KEPT_SEEDS, ...some()].map((seed) => ({ seed, keepsMost: false })),
      ...[...MERGING_SEEDS, ...some()].map((seed) => ({ seed, keepsMost: true })),
    ];
    const sum = { collections: 0, trashed: 0, rewritten: 0, merged: 0, removedForGood: 0 };
    for (const [at, life] of lives.entries()) {
      const done = await live({ ...life, secret: at % 2 === 0 ? null : KEY_FILE });
      for (const key of Object.keys(sum) as (keyof typeof sum)[]) sum[key] += done[key];
    }
    for (const count of Object.values(sum)) expect(count).toBeGreaterThan(0);
  },
);

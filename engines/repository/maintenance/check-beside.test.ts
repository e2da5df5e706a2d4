/** Checks beside collections: what is moved while it is looked at is neither damaged nor lost. */
import { afterEach, beforeEach, expect, test } from 'vitest';
import { lineageId } from '../../../schema/domain/ids.ts';
import type { CheckReport, CheckRequest } from '../../../schema/domain/maintenance.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { diskOf, verbsOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
beforeEach(async () => {
  world = await createMaintained();
});
afterEach(() => world.close());
const { sealedFull } = verbsOf(() => world);

const check = (depth: CheckRequest['depth']): Promise<CheckReport> =>
  world.repository.check(
    { depth, vmId: null, restorePointId: null, maxBytes: null, maxMs: null },
    { signal: new AbortController().signal, onProgress: () => undefined },
  );
const found = { whole: true, damages: [], marked: [] };

test.each([1, 2, 3])('a pack that is rewritten at look %d of a check is no damage', async (look) => {
  const disk = diskOf(2);
  const kept = await sealedFull(1, disk);
  const gone = await sealedFull(2, diskOf(6, 'gone'), { lineage: lineageId('f'.repeat(16)) });
  await world.reopen();
  await world.repository.removeRestorePoint(gone.restorePointId, { last: true });
  let [looks, rewritten] = [0, 0];
  world.before(
    ({ operation, name }) => operation === 'open' && name.startsWith('packs/') && (looks += 1) === look,
    async () => {
      rewritten = (await world.collect()).packsRewritten;
      // And the old one goes for good: not even the trash has it.
      world.pass(2 * DAY_MS);
      await world.collect();
    },
  );
  expect(await check('full')).toMatchObject(found);
  if (looks >= look) expect(rewritten).toBeGreaterThan(0);
  expect(await check('full')).toMatchObject(found);
  expect((await world.restore(kept)).equals(disk)).toBe(true);
});

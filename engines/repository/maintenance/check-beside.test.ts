/** Checks beside collections: what is moved while it is looked at is neither damaged nor lost. */
import { expect, test } from 'vitest';
import { lineageId } from '../../../schema/domain/ids.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, DAY_MS, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';

let world: Maintained;
const { sealedFull, check } = inEachTest(createMaintained, (made) => (world = made));

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
  expect(await check()).toMatchObject(found);
  if (looks >= look) expect(rewritten).toBeGreaterThan(0);
  expect(await check()).toMatchObject(found);
  expect((await world.restore(kept)).equals(disk)).toBe(true);
});

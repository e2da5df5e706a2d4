/** What a retention that was tried before reads of the trash, however many parts its answer has. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeEach, expect, test } from 'vitest';
import { jobId, lineageId, vmId, type RestorePointId } from '../../../schema/domain/ids.ts';
import type { LineagePolicy, LineageRetention } from '../../../schema/domain/maintenance-sessions.ts';
import { inEachTest } from '../../../tests/fixtures/repository/in-each-test.ts';
import { createMaintained, type Maintained } from '../../../tests/fixtures/repository/maintained.ts';
import { diskOf } from '../../../tests/fixtures/repository/verbs.ts';
import { leftToRetain } from '../../../workflows/retention-pages.ts';
import { applyRetention } from './apply-retention.ts';

const REMOVED = 7;
const lineages = [lineageId('a'.repeat(16)), lineageId('b'.repeat(16))] as const;

let world: Maintained;
/** Manifests in the trash that were read, by name. */
let read: string[];
const { sealedFull } = inEachTest(createMaintained, (made) => (world = made));
beforeEach(() => {
  read = [];
  world.before(
    ({ operation, name }) => {
      if (operation === 'openTrashed' && name.startsWith('manifests/')) read.push(name);
      return false;
    },
    async () => undefined,
  );
});

/** Of each lineage so many restore points in the trash. */
async function removeSome(): Promise<RestorePointId[]> {
  const removed: RestorePointId[] = [];
  for (const [at, lineage] of lineages.entries())
    for (let number = 1; number <= REMOVED; number += 1) {
      const { restorePointId } = await sealedFull(at * REMOVED + number, diskOf(1), { lineage });
      await world.repository.removeRestorePoint(restorePointId, { last: true });
      removed.push(restorePointId);
    }
  return removed.toSorted();
}

/** As a workflow asks whose first try was lost: until nothing is left. */
async function retainAgain(): Promise<LineageRetention[]> {
  const asked = lineages.map((lineage): LineagePolicy => {
    const names = { jobId: jobId('nightly'), vmId: vmId('v1'), vmName: 'web' };
    return { lineage, ...names, policy: null, vmGoneSince: null };
  });
  const answers: LineageRetention[] = [];
  for (let left = asked; left.length > 0;) {
    const said = await applyRetention(world.repository, { lineages: left, dryRun: false, again: true, mostTold: 2 });
    answers.push(...said);
    left = leftToRetain(left, said);
  }
  return answers;
}
const toldIn = (answers: LineageRetention[]): RestorePointId[] =>
  answers.flatMap(({ trashed = [] }) => trashed.map(({ restorePointId }) => restorePointId)).toSorted();

test('in many parts: each manifest is read once', async () => {
  const removed = await removeSome();
  read = [];
  const answers = await retainAgain();
  expect(answers.length).toBeGreaterThan(REMOVED);
  expect(toldIn(answers)).toEqual(removed);
  expect(answers[0]!.trashed).toMatchObject([{ trashedUntil: expect.any(String) as string }, {}]);
  expect(read).toHaveLength(removed.length);
  expect(new Set(read).size).toBe(removed.length);
  // Nor when it is asked the next night.
  expect(toldIn(await retainAgain())).toEqual(removed);
  expect(read).toHaveLength(removed.length);
});

test('what was brought back is not told, and is read anew when it is removed again; nor what is damaged', async () => {
  const removed = await removeSome();
  await retainAgain();
  const [back, damaged, ...others] = removed;
  const { restorePointId: id } = await world.repository.restoreFromTrash(back!);
  expect(toldIn(await retainAgain())).toEqual([damaged, ...others]);
  await world.repository.removeRestorePoint(id, { last: true });
  read = [];
  expect(toldIn(await retainAgain())).toEqual(removed);
  expect(read).toEqual([expect.stringContaining(back!)]);
  const name = world.trash().find((each) => each.endsWith(damaged!))!;
  await writeFile(join(world.folder, 'trash', name), 'not what it was');
  await world.reopen();
  expect(toldIn(await retainAgain())).toEqual([back!, ...others].toSorted());
});

/**
 * Maintenance cut off at every write point, of the repository and of its index: removals, collections that trash and
 * rewrite packs, what is taken back from the trash and what is removed for good, checks, repairs, flags and marks. The next
 * process finds what has to be there, with the index of that moment, an older one, one of the generation before or none;
 * in the end nothing that is needed is gone. A run plays a share of the cuts; TIDEMARK_TEST_ALL=1 plays all.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import type { CheckReport } from '../../../schema/domain/maintenance.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { AfterCare } from '../../../tests/fixtures/repository/after-care.ts';
import { nameOf } from '../../../tests/fixtures/repository/found-index.ts';
import { KEY_FILE } from '../../../tests/fixtures/repository/keys.ts';
import { RecordedCare, type Case, type Moment } from '../../../tests/fixtures/repository/recorded-care.ts';
import { sampled } from '../../../tests/fixtures/sampled.ts';

const ALL_MS = 3_600_000;

/** Steps of which a cut once broke something: said again after a kill they were told before they were durable. */
const KEPT_STEPS = ['remove 1', 'bring back 3'];

/** One case of `share` is played, of those with one index only `fewer`: no multiple of the number of indexes. */
describe.each([
  { what: 'plain', secret: null, share: { cases: 113, fewer: 41, failures: 67 } },
  { what: 'encrypted', secret: KEY_FILE, share: { cases: null, fewer: 83, failures: 151 } },
])('$what', ({ secret, share }) => {
  const recorded = new RecordedCare(secret);
  const after = new AfterCare(recorded);
  beforeAll(() => recorded.record());

  const fewer = (): Case[] => sampled(recorded.fewerCases(), share.fewer);
  /** Of an encrypted one each cut with one index is enough. */
  const cases = (): Case[] => (share.cases === null ? fewer() : sampled(recorded.cases(), share.cases));

  async function ofEach(what: string, cases: readonly Case[], live: (one: Case) => Promise<unknown>): Promise<void> {
    for (const one of cases) {
      const { cut, found } = one;
      try {
        await live(one);
      } catch (error) {
        const where = `cut ${cut.number} at ${cut.at} (${cut.step.name}), ${nameOf(found)} of ${cut.index}, ${what}`;
        throw new Error(`${where}: ${String(error)}`, { cause: error });
      }
    }
  }

  test('there is something to cut, and it comes to its ends', () => {
    const { cuts, outcomes } = recorded;
    expect(cuts.length).toBeGreaterThan(350);
    const indexCuts = cuts.filter(({ at }) => at.startsWith('index'));
    expect(indexCuts.length).toBeGreaterThan(50);
    // Packs of blocks and of pages: two that died in part, three of the third run; then those are merged.
    expect(outcomes.get('collect')).toMatchObject({ packsRewritten: 2, packsTrashed: 5 });
    const merging = 'collect when the removal is older than the grace';
    expect(outcomes.get(merging)).toMatchObject({ packsMerged: 6, packsTrashed: 6 });
    expect(cuts.filter(({ step }) => step.name === merging).length).toBeGreaterThan(30);
    expect(outcomes.get('collect when the packs are')).toMatchObject({ packsRemoved: 2 });
    const hurt = [2, 4].map((number) => recorded.ids.get(number)!).toSorted();
    expect(outcomes.get('collect again')).toMatchObject({ packsRemoved: 6 });
    expect(outcomes.get('repair')).toMatchObject({ packsSalvaged: 2, recordsLost: 1 });
    const [before, afterwards] = ['check', 'check again'].map((step) => outcomes.get(step) as CheckReport);
    expect([before!.marked.toSorted(), afterwards!.healed.toSorted(), afterwards!.damages]).toEqual([hurt, hurt, []]);
    expect(recorded.cases().filter(({ found }) => found.isOlder).length).toBeGreaterThan(300);
  });

  test('a power cut: nothing is left but what was durable', { timeout: ALL_MS }, () =>
    ofEach('nothing survives', cases(), (one) => after.goOn(one, one.cut.disk.afterCrash('nothing'), one.cut.number)),
  );

  test('a power cut: anything may be left of what was not durable', { timeout: ALL_MS }, async () => {
    const round = seeded().next(2 ** 31);
    await ofEach(`round ${round}`, cases(), (one) => {
      const seed = round + one.cut.number;
      return after.goOn(one, one.cut.disk.afterCrash(seed), seed);
    });
  });

  test('a kill, then a power cut: what was taken over from memory has become durable', { timeout: ALL_MS }, () =>
    ofEach('killed', fewer(), (one) => after.goOnAfterKill(one)),
  );

  test('a power cut, and another one while the next process takes it up', { timeout: ALL_MS }, async () => {
    const round = seeded().next(2 ** 31);
    await ofEach(`twice, round ${round}`, fewer(), (one) => {
      const seed = round + one.cut.number;
      return after.goOnTwice(one, one.cut.disk.afterCrash(seed), seed);
    });
  });

  test('any one call of a step fails; it is said again', { timeout: ALL_MS }, async () => {
    const failures: { start: Moment; point: number }[] = [];
    for (const start of recorded.starts.filter(({ step }) => !step.isEnd && step.name !== 'open'))
      for (let point = await after.countPoints(start); point > 0; point -= 1) failures.push({ start, point });
    for (const { start, point } of sampled(failures, share.failures)) await failOne(start, point);
  });

  async function failOne(start: Moment, point: number): Promise<void> {
    for (const what of ['EIO', 'ENOSPC'] as const) {
      try {
        await after.goOnAfterFailure(start, (disk) => disk.failAt(disk.points + point, what), point);
      } catch (error) {
        throw new Error(`call ${point} of ${start.step.name}, ${what}: ${String(error)}`, { cause: error });
      }
    }
  }

  test.each(secret === null ? [0, 1, 2, 3, 4, 5, 6, 7] : [])(
    'what is brought back is found when sync %i of it fails, and it is said again',
    async (number) => {
      const start = recorded.starts.find(({ step }) => step.name === 'bring back 3')!;
      const fault = { call: 'sync', what: 'EIO', path: /\/(packs|meta|manifests)\//, after: number, times: 1 } as const;
      await after.goOnAfterFailure(start, (disk) => disk.fail(fault), 1);
    },
  );

  test.each(secret === null ? KEPT_STEPS : [])('%s, killed at a rename', async (name) => {
    const kept = recorded.cuts.filter(({ step, at }) => step.name === name && /^rename .*manifests/.test(at));
    expect(kept.length).toBeGreaterThan(0);
    const cases = kept.map((cut) => ({ cut, found: { state: null, isOlder: false, isOfOtherGeneration: false } }));
    await ofEach('kept', cases, (one) => after.goOnAfterKill(one));
  });

  test('an older index answers for the packs that it knows, and younger packs are read', async () => {
    const older = recorded.cases().filter(({ found }) => found.isOlder);
    const before = after.laggingIndexes;
    await ofEach('older', older.slice(-2), (one) => after.goOn(one, one.cut.disk.afterKill(), null));
    expect(after.laggingIndexes).toBeGreaterThan(before);
  });
});

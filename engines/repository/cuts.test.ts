/**
 * Backups cut off at every write point: the disk keeps what was durable, and of the rest anything or nothing. Whatever
 * anybody was told before has to hold for the next process, with the index of that moment, an older one, one of the
 * generation before or none. A run plays a share of the cuts; TIDEMARK_TEST_ALL=1 plays all.
 */
import { beforeAll, describe, expect, test } from 'vitest';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { KEY_FILE } from '../../tests/fixtures/repository/keys.ts';
import { RecordedBackups } from '../../tests/fixtures/repository/recorded-backups.ts';
import { sampled } from '../../tests/fixtures/sampled.ts';

/** Survivals that once broke something; the cuts around are taken as well, since their numbers shift with the code. */
const KEPT_SEEDS: readonly { round: number; cut: number; why: string }[] = [
  { round: 1_220_375_890, cut: 64, why: 'a footer on disk lists a record that is not' },
  { round: 518_106_034, cut: 65, why: 'a footer on disk lists a record that is not' },
];
const CUTS_AROUND = 3;
/** More rounds find more; one of all cuts takes half a minute. */
const ROUNDS = Number(process.env['TIDEMARK_CUT_ROUNDS'] ?? 1);
const ALL_MS = 3_600_000;

/** `share`: one case of so many is played. No multiple of the number of indexes, so that a run meets each. */
describe.each([
  { what: 'plain', secret: null, share: 17 },
  { what: 'encrypted', secret: KEY_FILE, share: 61 },
])('$what', ({ secret, share }) => {
  const backups = new RecordedBackups(secret);
  beforeAll(() => backups.record());

  test('there is something to cut, and it comes to its ends', () => {
    const { cuts } = backups;
    expect(cuts.length).toBeGreaterThan(200);
    expect(cuts.at(-1)!.told.flatMap(({ what }) => (what === 'sealed' || what === 'aborted' ? [what] : []))).toEqual([
      'sealed',
      'sealed',
      'aborted',
    ]);
    const cases = backups.cases();
    for (const which of ['isOlder', 'isOfOtherGeneration'] as const)
      expect(cases.filter(({ found }) => found[which]).length).toBeGreaterThan(100);
  });

  test('a power cut: nothing is left but what was durable', { timeout: ALL_MS }, () =>
    backups.ofEach('nothing survives', sampled(backups.cases(backups.news), share), (one) =>
      backups.goOn(one, one.cut.disk.afterCrash('nothing'), one.cut.number),
    ),
  );

  test('a power cut: anything may be left of what was not durable', { timeout: ALL_MS }, async () => {
    const { next } = seeded();
    for (let count = 0; count < ROUNDS; count += 1) {
      const round = next(2 ** 31);
      await backups.ofEach(`round ${round}`, sampled(backups.cases(), share), (one) => {
        const seed = round + one.cut.number;
        return backups.goOn(one, one.cut.disk.afterCrash(seed), seed);
      });
    }
  });

  test('a kill, then a power cut: what was taken over from memory has become durable', { timeout: ALL_MS }, () =>
    backups.ofEach('killed', sampled(backups.cases(), share), async (one) => {
      const killed = one.cut.disk.afterKill();
      const told = await backups.goOn(one, killed, null);
      await backups.check(killed.afterCrash('nothing'), told);
    }),
  );

  test('an older index answers for the packs that it knows, and younger packs are read', async () => {
    const older = backups.cases().filter(({ found }) => found.isOlder);
    const before = backups.laggingIndexes;
    await backups.ofEach('older', older.slice(-4), (one) => backups.goOn(one, one.cut.disk.afterKill(), null));
    expect(backups.laggingIndexes).toBeGreaterThan(before);
  });

  test.each(secret === null ? KEPT_SEEDS : [])('$why (round $round, cut $cut)', async ({ round, cut: number }) => {
    const around = backups.cuts.slice(Math.max(0, number - 1 - CUTS_AROUND), number + CUTS_AROUND);
    const cases = backups.cases(around).filter(({ found }) => !found.isOlder && !found.isOfOtherGeneration);
    await backups.ofEach('kept', cases, (one) =>
      backups.goOn(one, one.cut.disk.afterCrash(round + number), round + number),
    );
  });
});

/**
 * Backups cut off at every write point: the disk keeps what was durable, and of the rest anything or nothing. Whatever
 * anybody was told before has to hold for the next process, with the index of that moment, an older one or none.
 */
import { afterAll, beforeAll, expect, test } from 'vitest';
import { seeded } from '../../tests/fixtures/mover/disks.ts';
import { checkSealed, checkTold } from '../../tests/fixtures/repository/check-told.ts';
import { FaultyDisk } from '../../tests/fixtures/repository/faulty-disk.ts';
import { createIndexHistory, type IndexHistory } from '../../tests/fixtures/repository/index-history.ts';
import {
  begin,
  drive,
  driveOn,
  end,
  type Run,
  threeDays,
  type Told,
} from '../../tests/fixtures/repository/run-life.ts';

/** Survivals that once broke something; the cuts around are taken as well, since their numbers shift with the code. */
const KEPT_SEEDS: readonly { round: number; cut: number; why: string }[] = [
  { round: 1_220_375_890, cut: 64, why: 'a footer on disk lists a record that is not' },
  { round: 518_106_034, cut: 65, why: 'a footer on disk lists a record that is not' },
];
const CUTS_AROUND = 3;
/** More rounds find more; one takes a few seconds. */
const ROUNDS = Number(process.env['TIDEMARK_CUT_ROUNDS'] ?? 1);

/** The disk as it was within one write point, what had been told by then, which run was under way, which index was kept. */
type Cut = { number: number; at: string; disk: FaultyDisk; told: Told[]; run: Run; index: number };

const runs = threeDays();
const cuts: Cut[] = [];
let history: IndexHistory;

beforeAll(async () => {
  history = createIndexHistory();
  const disk = new FaultyDisk();
  const told: Told[] = [];
  let run = runs[0]!;
  disk.onPoint((call, path) =>
    cuts.push({
      number: disk.points,
      at: `${call} ${path}`,
      disk: disk.afterKill(),
      told: [...told],
      run,
      index: history.now(),
    }),
  );
  for (const [day, ofDay] of [runs.slice(0, 1), runs.slice(1)].entries()) {
    const life = await begin(disk, history.folder, day);
    for (run of ofDay) await drive(life, run, { assignment: 1, tell: (one) => told.push(one) });
    await end(life);
  }
});
afterAll(() => history.remove());

/** The index that the next process finds: of the moment, none, or any earlier one. */
const indexOf = ({ number, index }: Cut): number | null => [index, null, number % (index + 1)][number % 3]!;

/** The next process finds what was told and takes the run to its end. What it told by then. */
async function goOn(cut: Cut, disk: FaultyDisk, index: number | null): Promise<Told[]> {
  const life = await begin(disk, history.folderAs(index), 1000 + cut.number);
  await checkTold(life, disk, cut.told, runs);
  const told = [...cut.told];
  await driveOn(life, cut.run, { assignment: 2, tell: (one) => told.push(one) });
  await checkSealed(life, told, runs);
  return told;
}

async function ofEachCut(
  what: string,
  live: (cut: Cut, index: number | null) => Promise<unknown>,
  chosen: readonly Cut[] = cuts,
): Promise<void> {
  for (const cut of chosen) {
    const index = indexOf(cut);
    try {
      await live(cut, index);
    } catch (error) {
      const where = `cut ${cut.number} at ${cut.at}, index ${index} of ${cut.index}, ${what}`;
      throw new Error(`${where}: ${String(error)}`, { cause: error });
    }
  }
}

test('there is something to cut, and it comes to its ends', () => {
  expect(cuts.length).toBeGreaterThan(200);
  expect(cuts.at(-1)!.told.flatMap(({ what }) => (what === 'sealed' || what === 'aborted' ? [what] : []))).toEqual([
    'sealed',
    'sealed',
    'aborted',
  ]);
});

test('a power cut: nothing is left but what was durable', { timeout: 120_000 }, () =>
  ofEachCut('nothing survives', (cut, index) => goOn(cut, cut.disk.afterCrash('nothing'), index), cuts.filter(isNews)),
);

/** Only a sync makes more durable: other cuts would leave what the one before them left. */
function isNews(cut: Cut, at: number): boolean {
  const before = cuts[at - 1];
  return !before || before.at.startsWith('sync') || before.told.length < cut.told.length;
}

test('a power cut: anything may be left of what was not durable', { timeout: 3_600_000 }, async () => {
  const { next } = seeded();
  for (let count = 0; count < ROUNDS; count += 1) {
    const round = next(2 ** 31);
    await ofEachCut(`round ${round}`, (cut, index) => goOn(cut, cut.disk.afterCrash(round + cut.number), index));
  }
});

test.each(KEPT_SEEDS)('$why (round $round, cut $cut)', async ({ round, cut: number }) => {
  const around = cuts.slice(Math.max(0, number - 1 - CUTS_AROUND), number + CUTS_AROUND);
  await ofEachCut(`kept`, (cut, index) => goOn(cut, cut.disk.afterCrash(round + number), index), around);
});

test('a kill, then a power cut: what was taken over from memory has become durable', { timeout: 120_000 }, () =>
  ofEachCut('killed', async (cut, index) => {
    const killed = cut.disk.afterKill();
    const told = await goOn(cut, killed, index);
    const disk = killed.afterCrash('nothing');
    await checkTold(await begin(disk, history.folderAs(null), 2000), disk, told, runs);
  }),
);

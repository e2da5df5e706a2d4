/** What becomes of small packs over the years, by the rules alone: nothing is stored. */
import { describe, expect, test } from 'vitest';
import type { PackContents } from '../../../schema/repository/pack.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { chooseMerges } from './choose-merges.ts';
import { choosePacks } from './choose-packs.ts';
import type { Accounts, PackAccount } from './pack-account.ts';
import { MOST_LISTED_RECORDS, TARGET_BYTES } from './pack-sizes.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** `copies`: how often it was copied; `diesOn`: a day. */
type SimRecord = { bytes: number; diesOn: number; copies: number };
type SimPack = { packId: string; contents: PackContents; records: SimRecord[] };

const bytesOf = (records: readonly SimRecord[]): number => records.reduce((sum, { bytes }) => sum + bytes, 0);

/** Packs, and what a collection each night does to them. */
class Years {
  packs: SimPack[] = [];
  day = 0;
  bornBytes = 0;
  writtenBytes = 0;
  mostPacks = 0;
  mostCopies = 0;
  #number = 0;

  add(contents: PackContents, records: SimRecord[]): void {
    this.packs.push({ packId: String((this.#number += 1)), contents, records });
    this.bornBytes += bytesOf(records);
  }

  living = (): SimRecord[] => this.packs.flatMap(({ records }) => this.#livingOf(records));
  #livingOf = (records: readonly SimRecord[]): SimRecord[] => records.filter(({ diesOn }) => diesOn > this.day);

  collect(): void {
    const accounts = new Map(this.packs.map((pack) => [pack.packId, this.#accountOf(pack)]));
    const all: Accounts = { packs: accounts, liveBytes: 0, deadBytes: 0 };
    const { dead, partlyDead, merges } = choosePacks(this.packs, all, () => false);
    this.packs = this.packs.filter(({ packId }) => !dead.some((pack) => pack.packId === packId));
    // Each by itself, which leaves more small packs than there would be.
    for (const { packId, contents } of partlyDead) this.#rewrite(contents, [packId]);
    for (const { contents, packs } of merges)
      this.#rewrite(
        contents,
        packs.map(({ packId }) => packId),
      );
    this.mostPacks = Math.max(this.mostPacks, this.packs.length);
  }

  #accountOf({ records }: SimPack): PackAccount {
    const living = this.#livingOf(records);
    const liveBytes = bytesOf(living);
    const deadBytes = bytesOf(records) - liveBytes;
    return { liveBytes, liveRecords: living.length, deadBytes, locked: false };
  }

  #rewrite(contents: PackContents, ids: readonly string[]): void {
    const going = this.packs.filter(({ packId }) => ids.includes(packId));
    const records = going.flatMap((pack) => this.#livingOf(pack.records));
    for (const record of records) this.mostCopies = Math.max(this.mostCopies, (record.copies += 1));
    const bytes = bytesOf(records);
    expect(bytes).toBeLessThanOrEqual(TARGET_BYTES[contents]);
    this.writtenBytes += bytes;
    this.packs = this.packs.filter((pack) => !going.includes(pack));
    this.packs.push({ packId: String((this.#number += 1)), contents, records });
  }
}

const FOR_EVER = Infinity;

describe('a year of hourly jobs', () => {
  /** Records of `bytes` in all, of at most 1 MiB. */
  function recordsOf(bytes: number, diesOn: number): SimRecord[] {
    const count = Math.ceil(bytes / MIB);
    return Array.from({ length: count }, () => ({ bytes: bytes / count, diesOn, copies: 0 }));
  }

  /** Each hour two packs of blocks and one of pages, of sizes that differ; collected each night. */
  function live(days: number, blocksBytes: number, diesOn: (day: number, hour: number) => number): Years {
    const years = new Years();
    const { next } = seeded();
    const some = (bytes: number): number => Math.round((bytes * (50 + next(100))) / 100);
    for (years.day = 0; years.day < days; years.day += 1) {
      for (let hour = 0; hour < 24; hour += 1) {
        const until = diesOn(years.day, hour);
        for (let lane = 0; lane < 2; lane += 1) years.add('blocks', recordsOf(some(blocksBytes), until));
        years.add('pages', recordsOf(some(24 * KIB), until));
      }
      years.collect();
    }
    return years;
  }

  test.each([16 * KIB, 512 * KIB, 4 * MIB])('all kept, lanes write some %i bytes', (blocksBytes) => {
    const years = live(365, blocksBytes, () => FOR_EVER);
    // Those that are no longer small, of both kinds, and some that wait.
    const full = { blocks: TARGET_BYTES.blocks / 5, pages: TARGET_BYTES.pages / 5 };
    const bytes = { blocks: 0, pages: 0 };
    for (const { contents, records } of years.packs) bytes[contents] += bytesOf(records);
    expect(years.packs.length).toBeLessThan(bytes.blocks / full.blocks + bytes.pages / full.pages + 60);
    expect(years.packs.length).toBeLessThan(365 * 24 * 3 * 0.12);
    expect(years.writtenBytes).toBeLessThan(3 * years.bornBytes);
    expect(years.mostCopies).toBeLessThanOrEqual(5);
  });

  test('kept for a month, the first of each day for ever', () => {
    const years = live(365, 512 * KIB, (day, hour) => (hour === 0 ? FOR_EVER : day + 31));
    expect(years.mostPacks).toBeLessThan(400);
    const { bornBytes, writtenBytes } = years;
    expect(writtenBytes).toBeLessThan(3 * bornBytes);
    expect(bytesOf(years.packs.flatMap(({ records }) => records))).toBeLessThan(bytesOf(years.living()) / 0.6 + 1);
  });
});

describe('which are merged', () => {
  const account = (liveBytes: number, liveRecords = 1): PackAccount => ({
    liveBytes,
    liveRecords,
    deadBytes: 0,
    locked: false,
  });
  const mergesOf = (contents: PackContents, accounts: PackAccount[]): number[] => {
    const packs = accounts.map((_, at) => ({ contents, packId: String(at) }));
    const merges = chooseMerges(packs, new Map(packs.map(({ packId }, at) => [packId, accounts[at]!])));
    return merges.map((merge) => merge.packs.length);
  };

  test('four of one size, not three; a heavier one waits', () => {
    const [one, more] = [account(MIB), account(3 * MIB)];
    expect(mergesOf('blocks', [one, one, one])).toEqual([]);
    expect(mergesOf('blocks', [one, one, one, one])).toEqual([4]);
    expect(mergesOf('blocks', [more, one, one, one, one])).toEqual([4]);
    expect(mergesOf('blocks', [more, ...Array.from({ length: 9 }, () => one)])).toEqual([10]);
  });

  test('no more than goes into a pack, by bytes and by records; none that is a fifth of one', () => {
    expect(
      mergesOf(
        'blocks',
        Array.from({ length: 20 }, () => account(10 * MIB)),
      ),
    ).toEqual([12, 8]);
    expect(
      mergesOf(
        'pages',
        Array.from({ length: 20 }, () => account(10 * MIB)),
      ),
    ).toEqual([]);
    const crowded = Array.from({ length: 20 }, () => account(MIB, MOST_LISTED_RECORDS / 10));
    expect(mergesOf('blocks', crowded)).toEqual([9, 9]);
    expect(
      mergesOf(
        'blocks',
        Array.from({ length: 20 }, () => account(MIB, MOST_LISTED_RECORDS / 4)),
      ),
    ).toEqual([]);
  });

  test('blocks and pages apart; nothing that is locked, damaged or mostly dead', () => {
    const names = Array.from({ length: 4 }, (_, at) => ({ contents: 'blocks' as const, packId: `${at}` }));
    const pages = { contents: 'pages' as const, packId: '3' };
    const with4 = (last: PackAccount): Accounts => ({
      packs: new Map(names.map(({ packId }, at) => [packId, at === 3 ? last : account(MIB)])),
      liveBytes: 0,
      deadBytes: 0,
    });
    const sound = (): boolean => false;
    expect(choosePacks(names, with4(account(MIB)), sound).merges).toMatchObject([{ packs: names, liveBytes: 4 * MIB }]);
    expect(choosePacks([...names.slice(0, 3), pages], with4(account(MIB)), sound).merges).toEqual([]);
    expect(choosePacks(names, with4({ ...account(MIB), locked: true }), sound)).toMatchObject({
      merges: [],
      lockedCount: 0,
    });
    expect(choosePacks(names, with4({ ...account(MIB), deadBytes: MIB }), sound)).toMatchObject({
      merges: [],
      partlyDead: [names[3]],
    });
    expect(choosePacks(names, with4(account(MIB)), (packId) => packId === '3').merges).toEqual([]);
  });
});

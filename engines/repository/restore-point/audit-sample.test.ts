import { readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { type Next, seeded } from '../../../tests/fixtures/mover/disks.ts';
import { AuditSample, auditSizeOf, permutation } from './audit-sample.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;

describe('the order of blocks', () => {
  test.each([1, 2, 3, 4, 5, 16, 17, 255, 256, 257, 1000, 70_000])('has each of %i once', (count) => {
    const order = permutation('a seed', count);
    const met = Array.from({ length: count }, (_, index) => order(index));
    expect(new Set(met).size).toBe(count);
    expect([Math.min(...met.slice(0, 1000)) >= 0, met.every((block) => block < count)]).toEqual([true, true]);
  });

  test('is the same for the same seed, and another for another', () => {
    const firstOf = (seed: string, count: number) =>
      Array.from({ length: 20 }, (_, index) => permutation(seed, count)(index));
    expect(firstOf('a', 2 ** 32)).toEqual(firstOf('a', 2 ** 32));
    expect(firstOf('a', 2 ** 32)).not.toEqual(firstOf('b', 2 ** 32));
    expect(Math.max(...firstOf('a', 2 ** 32))).toBeGreaterThan(2 ** 31);
  });
});

test.each([
  // A small disk whole, 64 blocks, 0.1 %, 1 GiB, a tenth of what changed.
  [{ blockCount: 40, blockSize: MIB, changedBytes: 0 }, 40],
  [{ blockCount: 6144, blockSize: MIB, changedBytes: 0 }, 64],
  [{ blockCount: 102_401, blockSize: MIB, changedBytes: 0 }, 103],
  [{ blockCount: 16 * 1024 * 1024, blockSize: MIB, changedBytes: GIB }, 1024],
  [{ blockCount: 16 * 1024 * 1024, blockSize: MIB, changedBytes: 20 * GIB }, 2048],
  [{ blockCount: 0, blockSize: MIB, changedBytes: 0 }, 0],
])('of %o are audited %i', (of, wanted) => {
  expect(auditSizeOf(of)).toBe(wanted);
});

type Case = { blocks: number; changed: number; lost: number; hot: number; lostHot: number; audited: number };

/** That none of `drawn` out of `total` is one of `bad`. */
function miss(total: number, bad: number, drawn: number): number {
  let chance = 1;
  for (let i = 0; i < drawn; i += 1) chance *= Math.max(0, total - bad - i) / (total - i);
  return chance;
}

/** As docs/audit.md says. */
function chanceOf({ blocks, changed, lost, hot, lostHot, audited }: Case): number {
  const unchanged = blocks - changed + lost;
  const fromHot = Math.min(hot, Math.floor(audited / 2));
  const fromAll = audited - fromHot;
  return 1 - miss(hot, lostHot, fromHot) * miss(unchanged - fromHot, lost, fromAll);
}

const percent = (chance: number): string => (chance >= 0.9995 ? '> 99.9 %' : `${(100 * chance).toFixed(1)} %`);

function rowsOfThePage(): { of: Case; cells: string[] }[] {
  const page = readFileSync(new URL('../../../docs/audit.md', import.meta.url), 'utf8');
  const rows = page.split('\n').filter((line) => /^\| \d/.test(line) && line.split('|').length === 10);
  return rows.map((row) => {
    const cells = row.split('|').slice(1, -1);
    const numbers = cells.slice(0, 6).map(Number) as [number, number, number, number, number, number];
    const [blocks, changed, lost, hot, lostHot, audited] = numbers;
    return { of: { blocks, changed, lost, hot, lostHot, audited }, cells: cells.map((cell) => cell.trim()) };
  });
}

/** A disk, `lost` blocks of which are changed and called unchanged; half of the hot blocks are reported, so not audited. */
function diskOf({ blocks, changed, lost, hot, lostHot }: Case, next: Next) {
  const order = permutation(`disk ${next(2 ** 31)}`, blocks);
  const at = (first: number, count: number) => Array.from({ length: count }, (_, i) => order(first + i));
  const lostBlocks = at(0, lost);
  const reported = at(lost, changed - lost);
  const quiet = at(changed, hot - lostHot);
  const hotBlocks = [...lostBlocks.slice(0, lostHot), ...quiet, ...reported.slice(0, hot)];
  return { lost: new Set(lostBlocks), reported: new Set(reported), hot: hotBlocks.sort((a, b) => a - b) };
}

/** Whether a sample found one of the lost blocks. */
function audit(of: Case, disk: ReturnType<typeof diskOf>, seed: string): { found: boolean; audited: number } {
  const sample = new AuditSample({ seed, blockCount: of.blocks, hot: disk.hot, wanted: of.audited });
  const met: number[] = [];
  let found = false;
  for (let blocks = sample.next(256); blocks.length > 0; blocks = sample.next(256)) {
    met.push(...blocks);
    const audited = blocks.filter((block) => !disk.reported.has(block));
    found ||= audited.some((block) => disk.lost.has(block));
    sample.note(audited.length);
  }
  if (new Set(met).size < met.length) throw new Error(`a block was asked for twice, seed ${seed}`);
  return { found, audited: sample.audited };
}

describe('the chance to find a lost block is what docs/audit.md says', () => {
  const rows = rowsOfThePage();

  test('the page has rows, computed by its own formula', () => {
    expect(rows.length).toBeGreaterThanOrEqual(10);
    for (const { of, cells } of rows) {
      const chance = chanceOf(of);
      expect(cells.slice(6)).toEqual([percent(chance), percent(1 - (1 - chance) ** 7)]);
      expect(auditSizeOf({ blockCount: of.blocks, blockSize: MIB, changedBytes: 0 })).toBe(of.audited);
    }
  });

  test.each(rows)('$of', ({ of }) => {
    const { seed, next } = seeded();
    const trials = of.blocks > 200_000 ? 200 : 1000;
    const chance = chanceOf(of);
    let [hits, short] = [0, 0];
    let disk = diskOf(of, next);
    for (let trial = 0; trial < trials; trial += 1) {
      if (trial % 250 === 249) disk = diskOf(of, next);
      const { found, audited } = audit(of, disk, `${seed} ${trial}`);
      short += Number(audited !== of.audited);
      hits += Number(found);
    }
    expect(short).toBe(0);
    // Six standard deviations: by chance once in 500 million runs.
    const tolerance = 6 * Math.sqrt((chance * (1 - chance)) / trials) + 2 / trials;
    expect(Math.abs(hits / trials - chance)).toBeLessThan(tolerance);
  });
});

test('a disk of which nearly everything is reported ends, with what there was', () => {
  const of = { blocks: 1000, changed: 990, lost: 0, hot: 0, lostHot: 0, audited: 64 };
  expect(audit(of, diskOf(of, seeded().next), 'x').audited).toBe(10);
  const all = { ...of, changed: 1000 };
  expect(audit(all, diskOf(all, seeded().next), 'x').audited).toBe(0);
});

test('blocks that changed recently are asked for first', () => {
  const sample = new AuditSample({ seed: 's', blockCount: 10_000, hot: [7, 8, 9], wanted: 64 });
  expect(sample.next(256).toSorted((a, b) => a - b)).toEqual([7, 8, 9]);
  sample.note(3);
  const rest = sample.next(256);
  expect([rest.length, rest.some((block) => [7, 8, 9].includes(block))]).toEqual([61, false]);
});

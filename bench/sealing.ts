/**
 * `node bench/sealing.ts [sessions]`: what an increment writes besides its blocks, and whether sealing it costs the same
 * with many restore points as with few. Exit code 1 when it misses what it must reach. See README.md beside it.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { renderTable } from '../cli/output/table.ts';
import { below, median, showBars, told, type Row } from './bars.ts';
import { passedSince, writtenOf, type Passed } from './counted-storage.ts';
import { realBlock, scatteredWrites } from './sealing/content.ts';
import { backUp, type Sealed } from './sealing/session.ts';
import { createWorld, SIZE_BYTES, type World } from './sealing/world.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const CHANGED_BLOCKS = 60;
const SCATTERED_WRITES = 960;
const [FEW, MANY] = [10, 10_000];
/** Of times that syncs are part of: so much of a difference is chance. */
const MOST_SLOWER = 1.25;

type Increment = Sealed & { passed: Passed; blockBytes: number; blockCount: number };

/** Of blocks with new content. */
async function increment(world: World, changed: ReadonlySet<number>): Promise<Increment> {
  const { blockSize } = world;
  const sent = new Map([...changed].map((block) => [block, realBlock(blockSize)] as const));
  const [before, blocksBefore] = [world.passed(), world.blocks()];
  const session = { number: world.nextNumber(), sizeBytes: SIZE_BYTES, blockSize, base: world.last, sent };
  const sealed = await backUp(world, session);
  world.last = sealed.restorePointId;
  const blockBytes = world.blocks() - blocksBefore;
  return { ...sealed, passed: passedSince(before, world.passed()), blockBytes, blockCount: sent.size };
}

/** As many blocks as asked for, each hit once. */
function scatteredBlocks(count: number, seed: number): Set<number> {
  const hit = scatteredWrites(SIZE_BYTES, MIB, 2 * count, seed);
  return new Set([...hit].slice(0, count));
}

type Series = { increments: Increment[]; closed: Passed; indexBytes: number };

/** Sessions in turn, so that both meet the same weather. `closed`: written to close packs of pages, and at the end. */
async function alternate(worlds: readonly World[], sessions: number): Promise<Series[]> {
  const series: Series[] = worlds.map(() => ({ increments: [], closed: worlds[0]!.passed(), indexBytes: 0 }));
  const before = worlds.map(({ index }) => index.written);
  for (let session = 0; session < sessions; session += 1)
    // Each is as often the first.
    for (const [at, world] of session % 2 === 0 ? [...worlds.entries()] : [...worlds.entries()].toReversed())
      series[at]!.increments.push(await increment(world, scatteredBlocks(CHANGED_BLOCKS, session * 1000)));
  for (const [at, world] of worlds.entries()) {
    const passed = world.passed();
    await world.close();
    series[at]!.closed = passedSince(passed, world.passed());
    series[at]!.indexBytes = world.index.written - before[at]!;
  }
  return series;
}

const most = (series: Series, of: (increment: Increment) => number): number => Math.max(...series.increments.map(of));
const typical = (series: Series, of: (increment: Increment) => number): number => median(series.increments.map(of));
const written = ({ passed }: Increment): number => writtenOf(passed);
const blockCountOf = ({ increments }: Series): number =>
  increments.reduce((sum, { blockCount }) => sum + blockCount, 0);

const time = (what: string, series: Series, of: 'openMs' | 'sealMs' | 'computeMs'): Row =>
  told(
    what,
    typical(series, (increment) => increment[of]),
    'ms',
    1,
  );

function rowsOf(few: Series, many: Series): Row[] {
  const sessions = few.increments.length;
  return [
    below('written besides blocks and index, most', most(few, written) / MIB, 'MiB', 0.5, 3),
    told('of it pages', typical(few, ({ passed }) => passed.packs) / KIB, 'KiB', 1),
    told('of it ledger', typical(few, ({ passed }) => passed.ledger) / KIB, 'KiB', 1),
    told('of it heads and manifest', typical(few, ({ passed }) => passed.documents) / KIB, 'KiB', 1),
    told('footers of pages, later, per seal', writtenOf(few.closed) / sessions / KIB, 'KiB', 1),
    below('written to the index, per new block', few.indexBytes / blockCountOf(few), 'B', 200, 1),
    below(
      `written with ${MANY} kept, of that with ${FEW}`,
      typical(many, written) / typical(few, written),
      '',
      1.01,
      4,
    ),
    time(`seal with ${FEW} kept`, few, 'sealMs'),
    time(`seal with ${MANY} kept`, many, 'sealMs'),
    below(
      `the one by the other`,
      typical(many, ({ sealMs }) => sealMs) / typical(few, ({ sealMs }) => sealMs),
      '',
      MOST_SLOWER,
      2,
    ),
    time(`of it computed with ${FEW} kept`, few, 'computeMs'),
    time(`of it computed with ${MANY} kept`, many, 'computeMs'),
    time(`open, declare, assign with ${FEW} kept`, few, 'openMs'),
    time(`open, declare, assign with ${MANY} kept`, many, 'openMs'),
  ];
}

async function scatter(root: string, blockSize: number): Promise<Increment & { blockSize: number }> {
  const world = await createWorld(root, blockSize, FEW);
  try {
    const changed = scatteredWrites(SIZE_BYTES, blockSize, SCATTERED_WRITES, 77);
    return { ...(await increment(world, changed)), blockSize };
  } finally {
    await world.close();
  }
}

async function showScattered(root: string): Promise<void> {
  const rows = [];
  for (const blockSize of [256 * KIB, MIB]) rows.push(await scatter(path.join(root, `s${blockSize}`), blockSize));
  const mib = (bytes: number): string => (bytes / MIB).toFixed(2);
  console.log(`${SCATTERED_WRITES} scattered writes of 64 KiB; half of every block cannot be compressed\n`);
  console.log(
    renderTable(rows, [
      { title: 'BLOCK KIB', of: (row) => String(row.blockSize / KIB), right: true },
      { title: 'BLOCKS', of: (row) => String(row.blockCount), right: true },
      { title: 'STORED MIB', of: (row) => mib(row.blockBytes), right: true },
      { title: 'PAGES MIB', of: (row) => mib(row.passed.packs), right: true },
      { title: 'LEDGER MIB', of: (row) => mib(row.passed.ledger), right: true },
      { title: 'SEAL MS', of: (row) => row.sealMs.toFixed(0), right: true },
    ]),
  );
}

const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  const worlds = [];
  for (const kept of [FEW, MANY]) worlds.push(await createWorld(path.join(root, `k${kept}`), MIB, kept));
  const [few, many] = (await alternate(worlds, Number(process.argv[2] ?? 21))) as [Series, Series];
  console.log(
    `increments of ${CHANGED_BLOCKS} blocks of 1 MiB, on a disk of 6 GiB; median of ${few.increments.length}\n`,
  );
  showBars('SEALING', rowsOf(few, many));
  await showScattered(root);
} finally {
  await rm(root, { recursive: true, force: true });
}

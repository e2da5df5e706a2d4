/**
 * `node bench/collection.ts [million blocks ...]`: removing restore points and collecting what died with them, at each of
 * the sizes given. Exit code 1 when it misses what it must reach. See README.md beside it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { anonymousMib, peaksUntil } from './anonymous-memory.ts';
import { below, median, showBars, told, type Row } from './bars.ts';
import type { Collection, Figures } from './collection/collect-process.ts';
import { generate } from './collection/generate.ts';
import { blocksOf, RESTORE_POINTS, shapeOf, VMS } from './collection/model.ts';

const MIB = 2 ** 20;
/** Million blocks. */
const DEFAULT_SIZES = [0.4, 4];
/** Of the filter of living ids, and what garbage that was not collected yet comes to by chance. */
const BYTES_PER_RECORD = 2;
const CHANCE_MIB = 16;

type Measured = Figures & {
  blocks: number;
  generateMs: number;
  openMs: number;
  openMib: number;
  peakMib: number;
  second: Collection;
};

async function measure(root: string, million: number): Promise<Measured> {
  const shape = shapeOf(million * 1e6);
  const [folder, indexFolder] = [path.join(root, 'r'), path.join(root, 'index')];
  const startedMs = performance.now();
  await generate(folder, indexFolder, shape);
  const generateMs = performance.now() - startedMs;
  const child = spawn(
    process.execPath,
    [
      '--expose-gc',
      // As workers are started.
      '--max-semi-space-size=16',
      path.join(import.meta.dirname, 'collection', 'collect-process.ts'),
      folder,
      indexFolder,
      String(million),
    ],
    { stdio: ['pipe', 'pipe', 'inherit'] },
  );
  const ended = once(child, 'exit');
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const next = async (): Promise<unknown> => JSON.parse((await lines.next()).value as string);
  const { openMs } = (await next()) as { openMs: number };
  const openMib = await anonymousMib(child.pid!);
  child.stdin.write('\n');
  const collected = next();
  const [peakMib] = (await peaksUntil(collected, [child.pid!])) as [number];
  const figures = (await collected) as Figures;
  child.stdin.write('\n');
  const second = (await next()) as Collection;
  // It writes to the folder until it ends.
  await ended;
  await rm(root, { recursive: true });
  return { ...figures, blocks: blocksOf(shape), generateMs, openMs, openMib, peakMib, second };
}

function rowsOf({ blocks, living, removalMs, syncMs, collection, rewrittenLiving, second, ...more }: Measured): Row[] {
  const { report } = collection;
  const seconds = (ms: number): number => ms / 1000;
  return [
    below('removing a restore point, median', median(removalMs), 'ms', 100, 1),
    told('the slowest', Math.max(...removalMs), 'ms', 1),
    told('a small file synced meanwhile, median', median(syncMs), 'ms', 1),
    told('the slowest', Math.max(...syncMs), 'ms', 1),
    below('read to know the living, per living block', collection.readMarking / living, 'B', 50, 1),
    below('written, per living byte of packs rewritten', collection.written / rewrittenLiving, '', 1.2, 3),
    below('a collection', seconds(collection.totalMs), 's', 60, 1),
    told('of it, until the living are known', seconds(collection.markedMs), 's', 1),
    told('packs that went to the trash', report.packsTrashed, ''),
    told('of them rewritten or merged', report.packsRewritten + report.packsMerged, ''),
    told('read to rewrite', collection.readRewriting / MIB, 'MiB', 1),
    told('read of the index, per block', collection.readIndex / blocks, 'B', 1),
    told('dead and left', (report.deadBytesLeft / (report.liveBytes + report.deadBytesLeft)) * 100, '%', 2),
    told('after the grace, a collection', seconds(second.totalMs), 's', 1),
    told('packs that it removed for good', second.report.packsRemoved, ''),
    told('anonymous memory, opened', more.openMib, 'MiB'),
    told('and at most in the collection', more.peakMib, 'MiB'),
    told('opening it', seconds(more.openMs), 's', 1),
    told('generating it', seconds(more.generateMs), 's'),
  ];
}

/** Of two sizes: what a collection takes beside what the open repository has, in bytes per block more. */
function growthRow(small: Measured, large: Measured): Row {
  const grownMib = large.peakMib - large.openMib - (small.peakMib - small.openMib);
  const mostMib = (BYTES_PER_RECORD * (large.blocks - small.blocks)) / MIB + CHANCE_MIB;
  const what = `anonymous memory of a collection, more with ${millions(large.blocks)} than with ${millions(small.blocks)}`;
  return below(what, grownMib, 'MiB', Math.round(mostMib));
}

const millions = (blocks: number): string => `${(blocks / 1e6).toFixed(2)} million`;

async function show(root: string, million: number): Promise<Measured> {
  const measured = await measure(root, million);
  console.log(
    `${millions(measured.blocks)} blocks, ${RESTORE_POINTS} restore points of ${VMS} VMs, ${VMS} of them removed\n`,
  );
  showBars('COLLECTION', rowsOf(measured));
  return measured;
}

const sizes = process.argv.slice(2).map(Number);
const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  const measured: Measured[] = [];
  for (const size of sizes.length > 0 ? sizes : DEFAULT_SIZES)
    measured.push(await show(path.join(root, String(size)), size));
  const [small, large] = [measured[0]!, measured.at(-1)!];
  if (small !== large) showBars('MEMORY', [growthRow(small, large)]);
} finally {
  await rm(root, { recursive: true, force: true });
}

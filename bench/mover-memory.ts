/**
 * `node bench/mover-memory.ts [GiB]`: how fast the movers are, and that their memory does not grow with the disk.
 * Exit code 1 when it does. See README.md beside it.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { renderTable } from '../cli/output/table.ts';
import type { TransferSummary } from '../schema/domain/restore-point.ts';
import { MOST_GROWTH, peaksUntil } from './anonymous-memory.ts';
import type { DiskModel } from './mover/disk-model.ts';
import { measureThroughput, writeMixedDisk } from './mover/throughput.ts';

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
const LANES = 2;
process.env['TIDEMARK_LOG'] ??= 'warn';

type MemoryRow = { kind: string; sizeGib: number; seconds: number; sourceMib: number; targetMib: number };

function run(entry: string, args: string[]): ChildProcess {
  const file = path.join(import.meta.dirname, 'mover', entry);
  return spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
}

/**
 * Disks of one size, in a process for each end, until `totalGib` went over: so that all sizes have the same time to use
 * memory, and only the size of the disk differs. The highest anonymous memory of each end is taken.
 */
async function measureMemory(
  folder: string,
  { kind, sizeGib, totalGib }: { kind: DiskModel['kind']; sizeGib: number; totalGib: number },
): Promise<MemoryRow> {
  const socket = path.join(folder, `${kind}-${sizeGib}`, 'mover');
  const target = run('target-process.ts', [socket, String(LANES)]);
  try {
    await once(target.stdout!, 'data');
    const model = JSON.stringify({ kind, sizeBytes: sizeGib * GIB } satisfies DiskModel);
    const source = run('source-process.ts', [socket, String(LANES), model, String(totalGib / sizeGib)]);
    const said = once(source.stdout!, 'data') as Promise<[Buffer]>;
    const peaks = await peaksUntil(said, [source.pid!, target.pid!]);
    const { durationMs } = JSON.parse((await said)[0].toString()) as TransferSummary;
    return { kind, sizeGib, seconds: durationMs / 1000, sourceMib: peaks[0]!, targetMib: peaks[1]! };
  } finally {
    target.kill('SIGKILL');
  }
}

async function showThroughput(folder: string): Promise<void> {
  const sizeBytes = 2 * GIB;
  const file = path.join(folder, 'disk');
  await writeMixedDisk(file, sizeBytes);
  const rows: { compression: string; laneCount: number; summary: TransferSummary }[] = [];
  for (const compression of ['none', 'fast', 'balanced', 'small'] as const)
    for (const laneCount of [1, 2])
      rows.push({
        compression,
        laneCount,
        summary: await measureThroughput(folder, file, { sizeBytes, laneCount, compression }),
      });
  await rm(file);
  console.log('2 GiB, a third each of random bytes, zeros and text; packs written and synced\n');
  console.log(
    renderTable(rows, [
      { title: 'COMPRESSION', of: (row) => row.compression },
      { title: 'LANES', of: (row) => String(row.laneCount), right: true },
      { title: 'SECONDS', of: ({ summary }) => (summary.durationMs / 1000).toFixed(1), right: true },
      { title: 'READ MIB/S', of: ({ summary }) => rate(summary.readBytes, summary.durationMs), right: true },
      { title: 'SENT MIB', of: ({ summary }) => (summary.sentBytes / MIB).toFixed(0), right: true },
    ]),
  );
}

const rate = (bytes: number, durationMs: number): string => (bytes / MIB / (durationMs / 1000)).toFixed(0);

async function showMemory(folder: string, totalGib: number): Promise<boolean> {
  const sizes = [1, 4, 16, 64].filter((size) => size <= totalGib);
  const rows: MemoryRow[] = [];
  for (const kind of ['full', 'sparse'] as const)
    for (const sizeGib of sizes) rows.push(await measureMemory(folder, { kind, sizeGib, totalGib }));
  console.log(
    `\nhighest anonymous memory (RssAnon) of each process while ${totalGib} GiB went over, ${LANES} lanes, zstd\n`,
  );
  console.log(
    renderTable(rows, [
      { title: 'DISK', of: (row) => row.kind },
      { title: 'GIB', of: (row) => String(row.sizeGib), right: true },
      { title: 'SECONDS EACH', of: (row) => row.seconds.toFixed(1), right: true },
      { title: 'SOURCE MIB', of: (row) => row.sourceMib.toFixed(0), right: true },
      { title: 'TARGET MIB', of: (row) => row.targetMib.toFixed(0), right: true },
    ]),
  );
  return ['full', 'sparse'].every((kind) => isFlat(rows.filter((row) => row.kind === kind)));
}

function isFlat(rows: MemoryRow[]): boolean {
  const [first, last] = [rows[0]!, rows.at(-1)!];
  const growth = { source: last.sourceMib / first.sourceMib, target: last.targetMib / first.targetMib };
  const from = `${first.kind}, ${first.sizeGib} to ${last.sizeGib} GiB`;
  console.log(`\n${from}: source x ${growth.source.toFixed(2)}, target x ${growth.target.toFixed(2)}`);
  return growth.source <= MOST_GROWTH && growth.target <= MOST_GROWTH;
}

const folder = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  await showThroughput(folder);
  const flat = await showMemory(folder, Number(process.argv[2] ?? 16));
  console.log(flat ? '\nflat' : `\nNOT FLAT: more than x ${MOST_GROWTH}`);
  process.exitCode = flat ? 0 : 1;
} finally {
  await rm(folder, { recursive: true, force: true });
}

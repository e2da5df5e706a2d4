/**
 * `node bench/index.ts [million records]`: the index of a repository at size. Exit code 1 when it misses what it must
 * reach. See README.md beside it.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, readdir, rm, stat } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { peaksUntil } from './anonymous-memory.ts';
import { below, showBars, told, type Row } from './bars.ts';
import { PACK_RECORDS } from './index/generator.ts';
import { growIndex } from './index/grow.ts';
import type { Figures } from './index/open-process.ts';
import { rebuildRate } from './index/rebuild.ts';

const UUID = 'be'.repeat(16);
const REBUILT_PACKS = 2000;

async function sizeOf(folder: string): Promise<number> {
  const sizes = await Promise.all(
    (await readdir(folder)).map(async (name) => (await stat(path.join(folder, name))).size),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

async function measureOpen(args: string[]): Promise<Figures & { peakMib: number }> {
  const entry = path.join(import.meta.dirname, 'index', 'open-process.ts');
  const child = spawn(process.execPath, [entry, ...args], { stdio: ['ignore', 'pipe', 'inherit'] });
  const said = once(child.stdout, 'data') as Promise<[Buffer]>;
  const [peakMib] = (await peaksUntil(Promise.race([said, once(child, 'exit')]), [child.pid!])) as [number];
  return { ...(JSON.parse((await said)[0].toString()) as Figures), peakMib };
}

async function measure(root: string, packCount: number): Promise<Row[]> {
  const [folder, indexFolder] = [path.join(root, 'r'), path.join(root, 'cache')];
  const records = packCount * PACK_RECORDS;
  const growth = await growIndex({ folder, indexFolder, uuid: UUID, packCount });
  const opened = await measureOpen([folder, indexFolder, UUID, String(records)]);
  return [
    below('open', opened.openMs / 1000, 's', 2, 2),
    below('highest anonymous memory', opened.peakMib, 'MiB', 300),
    below('on disk, per record', (await sizeOf(indexFolder)) / records, 'B', 80, 1),
    below('1024 misses', opened.missesMs, 'ms', 2, 2),
    below('1024 hits', opened.hitsMs, 'ms', 10, 2),
    below('written over its life, per record', growth.writtenBytes / records, 'B', 200),
    told('longest turn of what goes on behind', growth.longestTurnMs, 'ms'),
    told('all records in order', opened.scanSeconds, 's', 1),
    told('applied, flushed and merged', records / growth.seconds / 1000, 'thousand/s'),
    told('made from footers', (await rebuildRate(path.join(root, 'rebuilt'), REBUILT_PACKS)) / 1000, 'thousand/s'),
  ];
}

const packCount = Math.ceil((Number(process.argv[2] ?? 10) * 1e6) / PACK_RECORDS);
const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  const rows = await measure(root, packCount);
  console.log(`${packCount * PACK_RECORDS} records in ${packCount} packs\n`);
  showBars('INDEX', rows);
} finally {
  await rm(root, { recursive: true, force: true });
}

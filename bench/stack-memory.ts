/**
 * `node bench/stack-memory.ts [GiB of the large disks]`: the memory of each process of the stack with four disks in flight, small ones and
 * large ones with as much data. Exit code 1 when it grows with the disk, or is more than it may be. See README.md beside it.
 */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { renderTable } from '../cli/output/table.ts';
import type { SessionReport } from '../tests/fixtures/world/report.ts';
import { MIB, startEmptyWorld, type World } from '../tests/fixtures/world/world.ts';
import { MOST_GROWTH, peaksUntil } from './anonymous-memory.ts';

const DISKS = 4;
const DATA_GIB = 1;
/** Of each mebibyte with data so much is nowhere else: every block goes the whole way, and takes little room. */
const UNIQUE_BYTES = 64 * 1024;
/** Above what it has when nothing goes on, MB: of those that move data. */
const MOST_MORE = 200;
const movers = new Set(['proxy', 'repository']);

type Peaks = Map<string, number>;
type Run = { idle: Peaks; backup: Peaks; restore: Peaks; seconds: number };

/** As many mebibytes of data, all over the disk. */
async function makeImage(file: string, sizeGib: number): Promise<void> {
  const image = await open(file, 'wx');
  const block = Buffer.alloc(MIB);
  for (let i = 0; i < DATA_GIB * 1024; i += 1) {
    randomFillSync(block, 0, UNIQUE_BYTES);
    await image.write(block, 0, MIB, Math.floor((i * sizeGib) / DATA_GIB) * MIB);
  }
  await image.truncate(sizeGib * 1024 * MIB);
  await image.close();
}

const siteOf = (world: World, files: readonly string[]): string => `site: b
machine: m1
hosts:
  - name: images
    provider: image
    vms:
${files.map((file, i) => `      - { name: v${i}, disks: [{ name: d0, file: ${file}, format: raw }] }`).join('\n')}
proxies: [{ name: p1, slots: ${DISKS}, restoreFolders: [${world.restores}] }]
repositories: [{ name: main, folder: ${world.repository}, slots: ${DISKS} }]
jobs:
  - name: all
    vms: [${files.map((_, i) => `v${i}`).join(', ')}]
    repository: main
    maxParallelVms: ${DISKS}
`;

/** The highest of each process while `work` goes on. */
async function peaksDuring<T>(world: World, work: () => Promise<T>): Promise<{ peaks: Peaks; result: T }> {
  const children = (await world.status()).children.filter(({ pid }) => pid !== null);
  const going = work();
  const peaks = await peaksUntil(
    going,
    children.map(({ pid }) => pid!),
  );
  return { peaks: new Map(children.map(({ name }, i) => [name, peaks[i]!])), result: await going };
}

async function measure(sizeGib: number): Promise<Run> {
  const world = await startEmptyWorld();
  try {
    const files = Array.from({ length: DISKS }, (_, i) => path.join(world.root, `v${i}.raw`));
    for (const file of files) await makeImage(file, sizeGib);
    const applied = await world.apply(siteOf(world, files));
    if (applied.code !== 0) throw new Error(applied.stdout + applied.stderr);
    const { peaks: idle } = await peaksDuring(world, () => world.call('status'));
    const startedMs = performance.now();
    // Images cannot be frozen: exit code 3, a warning.
    const taken = await peaksDuring(world, () => world.json<SessionReport>(['job', 'run', 'all'], [0, 3]));
    const points = taken.result.session!.vms.map(({ restorePointId }) => restorePointId!);
    const { peaks: restore } = await peaksDuring(world, () => Promise.all(points.map((id) => world.restore(id, id))));
    return { idle, backup: taken.peaks, restore, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    await world.close();
  }
}

const largeGib = Number(process.argv[2] ?? 1024);
const [small, large] = [await measure(DATA_GIB), await measure(largeGib)];
const mb = (mib: number): string => ((mib * MIB) / 1e6).toFixed(0);
const rows = [...large.idle.keys()].map((name) => {
  const of = (peaks: Peaks): number => peaks.get(name) ?? 0;
  const highest = Math.max(...[small, large].flatMap(({ backup, restore }) => [of(backup), of(restore)]));
  const growth = Math.max(of(large.backup) / of(small.backup), of(large.restore) / of(small.restore));
  const moreMb = ((highest - of(small.idle)) * MIB) / 1e6;
  return { name, of, growth, moreMb, isMet: growth <= MOST_GROWTH && (!movers.has(name) || moreMb <= MOST_MORE) };
});
console.log(
  `highest anonymous memory (RssAnon), MB, with ${DISKS} disks of ${DATA_GIB} GiB in flight, and ${DISKS} of ${largeGib} GiB with as ` +
    `much data (${small.seconds.toFixed(0)} s and ${large.seconds.toFixed(0)} s)\n`,
);
console.log(
  renderTable(rows, [
    { title: 'PROCESS', of: ({ name }) => name },
    { title: 'IDLE', of: ({ of }) => mb(of(small.idle)), right: true },
    { title: 'BACKUP', of: ({ of }) => mb(of(small.backup)), right: true },
    { title: 'LARGE', of: ({ of }) => mb(of(large.backup)), right: true },
    { title: 'RESTORE', of: ({ of }) => mb(of(small.restore)), right: true },
    { title: 'LARGE', of: ({ of }) => mb(of(large.restore)), right: true },
    { title: 'GROWTH', of: ({ growth }) => `x ${growth.toFixed(2)}`, right: true },
    { title: 'ABOVE IDLE', of: ({ moreMb }) => moreMb.toFixed(0), right: true },
    { title: '', of: ({ isMet }) => (isMet ? '' : 'NOT MET') },
  ]),
);
process.exitCode = rows.every(({ isMet }) => isMet) ? 0 : 1;

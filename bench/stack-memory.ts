/**
 * `node bench/stack-memory.ts [GiB]`: the memory of each process of the stack does not grow with the disk. Exit code 1
 * when one does. See README.md beside it.
 */
import { randomFillSync } from 'node:crypto';
import { open } from 'node:fs/promises';
import path from 'node:path';
import { renderTable } from '../cli/output/table.ts';
import type { SessionReport } from '../tests/fixtures/world/report.ts';
import { MIB, startEmptyWorld, type World } from '../tests/fixtures/world/world.ts';
import { MOST_GROWTH, peaksUntil } from './anonymous-memory.ts';

const DATA_BYTES = 64 * 1024;

type Peaks = Map<string, number>;
type Run = { peaks: Peaks; seconds: number };

/** Each mebibyte holds some bytes that are nowhere else: every block goes the whole way, and takes little room. */
async function makeImage(file: string, sizeGib: number): Promise<void> {
  const image = await open(file, 'wx');
  const piece = Buffer.alloc(DATA_BYTES);
  for (let place = 0; place < sizeGib * 1024; place += 1)
    await image.write(randomFillSync(piece), 0, DATA_BYTES, place * MIB);
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
proxies: [{ name: p1, restoreFolders: [${world.restores}] }]
repositories: [{ name: main, folder: ${world.repository} }]
jobs:
  - name: all
    vms: [${files.map((_, i) => `v${i}`).join(', ')}]
    repository: main
    maxParallelVms: 1
`;

/** The highest of each process while `work` goes on. */
async function peaksDuring(world: World, work: () => Promise<unknown>): Promise<Peaks> {
  const children = (await world.status()).children.filter(({ pid }) => pid !== null);
  const pids = children.map(({ pid }) => pid!);
  const peaks = await peaksUntil(work(), pids);
  return new Map(children.map(({ name }, i) => [name, peaks[i]!]));
}

async function measure(count: number, sizeGib: number): Promise<Run> {
  const world = await startEmptyWorld();
  try {
    const files = Array.from({ length: count }, (_, i) => path.join(world.root, `v${i}.raw`));
    for (const file of files) await makeImage(file, sizeGib);
    const applied = await world.apply(siteOf(world, files));
    if (applied.code !== 0) throw new Error(applied.stdout + applied.stderr);
    const startedMs = performance.now();
    const peaks = await peaksDuring(world, async () => {
      // Images cannot be frozen: exit code 3, a warning.
      const { session } = await world.json<SessionReport>(['job', 'run', 'all'], [0, 3]);
      for (const { restorePointId } of session!.vms) await world.restore(restorePointId!, restorePointId!);
    });
    return { peaks, seconds: (performance.now() - startedMs) / 1000 };
  } finally {
    await world.close();
  }
}

const totalGib = Number(process.argv[2] ?? 16);
const [many, one] = [await measure(totalGib, 1), await measure(1, totalGib)];
const rows = [...one.peaks].map(([name, large]) => ({ name, small: many.peaks.get(name) ?? 0, large }));
console.log(
  `highest anonymous memory (RssAnon), MiB, while ${totalGib} GiB were backed up and restored ` +
    `(${many.seconds.toFixed(0)} s and ${one.seconds.toFixed(0)} s)\n`,
);
console.log(
  renderTable(rows, [
    { title: 'PROCESS', of: ({ name }) => name },
    { title: `${totalGib} DISKS OF 1 GIB`, of: ({ small }) => small.toFixed(0), right: true },
    { title: `ONE OF ${totalGib} GIB`, of: ({ large }) => large.toFixed(0), right: true },
    { title: 'GROWTH', of: ({ small, large }) => `x ${(large / small).toFixed(2)}`, right: true },
  ]),
);
const grown = rows.filter(({ small, large }) => large / small > MOST_GROWTH);
console.log(grown.length === 0 ? '\nflat' : `\nNOT FLAT: ${grown.map(({ name }) => name).join(', ')}`);
process.exitCode = grown.length === 0 ? 0 : 1;

/**
 * `npm run bench [-- --quick] [-- --gib 6] [-- --folder /usr] [-- --write docs]`: the whole product beside other tools on one image, and
 * beside what the machine can do. Exit code 1 when a bar is not met. See README.md beside it.
 */
import { mkdir, mkdtemp, rm, statfs, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { ChangingImage } from './backup/changing-image.ts';
import { measureLimits } from './backup/limits.ts';
import { type Contest, fullBackup, increment, proveRestore, restoreAll } from './backup/parts.ts';
import { findPeers } from './backup/peers.ts';
import { Product } from './backup/product.ts';
import { pageOf, pictureOf, type Part } from './backup/report.ts';
import { judge, MIB } from './repository/report.ts';

const SEED = 20_261_130;
const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    gib: { type: 'string' },
    folder: { type: 'string', default: '/usr' },
    write: { type: 'string' },
  },
});
const sizeBytes = Number(values.gib ?? (values.quick ? 0.5 : 6)) * 1024 * MIB;
const rounds = values.quick ? 1 : 3;

async function refuseSmallDisk(folder: string): Promise<void> {
  const { bavail, bsize } = await statfs(folder);
  if (bavail * bsize < 8 * sizeBytes)
    throw new Error(`${folder} needs ${((8 * sizeBytes) / 2 ** 30).toFixed(0)} GiB free: use --gib, or TMPDIR`);
}

async function run(root: string): Promise<void> {
  const image = new ChangingImage(root, { folder: values.folder, sizeBytes, seed: SEED });
  const { first } = image;
  const size = `${(first.sizeBytes / MIB).toFixed(0)} MiB of ${first.fileCount} files of ${values.folder}`;
  console.log(`${size}, seed ${SEED}, ${rounds} rounds, ${os.availableParallelism()} cores`);
  const peers = await findPeers(root, image.file);
  const product = await Product.start(first);
  try {
    const contest: Contest = { root, image, peers, product, rounds };
    const limits = await measureLimits(first, root);
    const parts: Part[] = [await fullBackup(contest, limits)];
    // These go on from what was backed up last.
    for (const tracked of [true, false]) parts.push(await increment(contest, tracked));
    await proveRestore(contest);
    parts.push(await restoreAll(contest));
    process.exitCode = judge(parts.flatMap(({ bars }) => bars)) ? 0 : 1;
    if (values.write !== undefined) await write(values.write, parts, size);
  } finally {
    await product.close();
  }
}

async function write(folder: string, parts: readonly Part[], size: string): Promise<void> {
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, 'benchmark.md'), pageOf(parts, size));
  await writeFile(path.join(folder, 'benchmark.svg'), pictureOf(parts));
}

const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
try {
  await refuseSmallDisk(root);
  await run(root);
} finally {
  await rm(root, { recursive: true, force: true });
}

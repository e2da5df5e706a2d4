/**
 * `node bench/repository.ts [GiB] [folder of files]`: how fast a repository is verified and a disk restored, beside other
 * tools and beside what the machine can do. Exit code 1 when a bar is not met. See README.md beside it.
 */
import { mkdir, mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { type Image, makeImage } from './repository/image.ts';
import { checkSums, proveRestores, restoreToDisk, restoreToMemory, verifyAll, type World } from './repository/parts.ts';
import { bytesOf } from './repository/measure.ts';
import { type Peer, startBorg, startRestic } from './repository/peers.ts';
import { type Bar, judge, MIB, showStored } from './repository/report.ts';
import { startTidemark, type Tidemark } from './repository/tidemark.ts';

const SEED = 20_261_130;
/** A file system in memory on every Linux. */
const MEMORY = '/dev/shm';
process.env['TIDEMARK_LOG'] ??= 'warn';

async function startPeers(root: string, image: Image): Promise<Map<string, Peer>> {
  const peers = new Map<string, Peer>();
  for (const [name, start] of Object.entries({ restic: startRestic, borg: startBorg })) {
    const peer = await start(root, image);
    console.log(peer ? peer.version : `${name} is not installed: left out`);
    if (peer) peers.set(name, peer);
  }
  return peers;
}

async function startTidemarks(root: string, image: Image): Promise<World['tidemarks']> {
  const start = (name: string, passphrase: string | null): Promise<Tidemark> =>
    startTidemark(path.join(root, name), image, passphrase === null ? null : { kind: 'passphrase', passphrase });
  return { tidemark: await start('plain', null), 'tidemark, encrypted': await start('encrypted', 'of the bench') };
}

async function measure(world: World): Promise<Bar[]> {
  const { image, tidemarks, peers } = world;
  const stored = [{ name: 'the image', bytes: image.sizeBytes }];
  for (const [name, { folder }] of [...Object.entries(tidemarks), ...peers])
    stored.push({ name, bytes: await bytesOf(folder) });
  showStored(stored, image.sizeBytes);
  await proveRestores(world);
  const bars: Bar[] = [];
  for (const part of [verifyAll, checkSums, restoreToMemory, restoreToDisk]) bars.push(...(await part(world)));
  return bars;
}

const [gib = '2', folder = '/usr'] = process.argv.slice(2);
const root = await mkdtemp(path.join(os.tmpdir(), 'td-bench-'));
const memory = await mkdtemp(path.join(MEMORY, 'td-bench-'));
try {
  const image = makeImage(path.join(root, 'image'), { folder, sizeBytes: Number(gib) * 1024 * MIB, seed: SEED });
  console.log(`${(image.sizeBytes / MIB).toFixed(0)} MiB of ${image.fileCount} files of ${folder}, seed ${SEED}`);
  for (const name of ['plain', 'encrypted', 'starter', 'disk']) await mkdir(path.join(root, name));
  const peers = await startPeers(root, image);
  const tidemarks = await startTidemarks(root, image);
  const starter = await startTidemark(path.join(root, 'starter'), { ...image, sizeBytes: MIB }, null);
  const bars = await measure({ image, tidemarks, starter, peers, disk: path.join(root, 'disk'), memory });
  process.exitCode = judge(bars) ? 0 : 1;
  for (const tidemark of [...Object.values(tidemarks), starter]) await tidemark.close();
} finally {
  await rm(root, { recursive: true, force: true });
  await rm(memory, { recursive: true, force: true });
}

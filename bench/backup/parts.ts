/** What is measured, part by part, and how high the bars are. */
import { rm, unlink } from 'node:fs/promises';
import path from 'node:path';
import { bytesOf, cleared, type Contender, shell, takeInTurn } from '../repository/measure.ts';
import { type Bar, showStored, showTaken, timesAsFast } from '../repository/report.ts';
import { type ChangingImage, CHANGED_BYTES } from './changing-image.ts';
import type { Limits } from './limits.ts';
import type { Peer } from './peers.ts';
import type { Product } from './product.ts';
import type { Part } from './report.ts';

export type Contest = { root: string; image: ChangingImage; peers: Peer[]; product: Product; rounds: number };
const OURS = 'tidemark';
const IDLE = 'tidemark, nothing changed';

/** How many times as fast as each peer that there is; peers by name. */
function barsOf(part: Part, title: string, must: Record<string, number>): Bar[] {
  return Object.entries(must)
    .filter(([name]) => part.taken.has(name))
    .map(([name, times]) => ({
      what: `${title}: times as fast as ${name}`,
      is: timesAsFast(part.taken, OURS, name),
      must: times,
    }));
}

/** Every round into repositories that are new. */
export async function fullBackup({ image, peers, product, rounds }: Contest, limits: Limits): Promise<Part> {
  const { sizeBytes } = image.first;
  const taken = await takeInTurn(
    [
      { name: OURS, before: () => product.freshRepository(), run: () => product.session('full') },
      ...peers.map(({ name, fresh, backUp }) => ({ name, before: fresh, run: backUp })),
    ],
    { rounds, beforeRound: () => shell('sync', []) },
  );
  const part: Part = { title: 'FULL BACKUP', taken, bytes: sizeBytes, bars: [] };
  showTaken(part.title, taken, sizeBytes);
  const stored = [{ name: OURS, bytes: await bytesOf(product.folder) }];
  for (const { name, folder } of peers) stored.push({ name, bytes: await bytesOf(folder) });
  showStored(stored, sizeBytes);
  part.bars = barsOf(part, 'full', { restic: 2, borg: 1.5, 'qemu-img convert': 1 });
  const borg = stored.find(({ name }) => name === 'borg');
  if (borg) part.bars.push({ what: "full: borg's stored bytes, of ours", is: borg.bytes / stored[0]!.bytes, must: 1 });
  const least = (limits.leastSeconds * sizeBytes) / 2 ** 30;
  showLimits(limits);
  part.bars.push({ what: "full: share of the machine's limit", is: least / taken.get(OURS)!.seconds, must: 0.75 });
  for (const { name, folder } of peers) if (name.startsWith('qemu')) await rm(folder, { recursive: true });
  return part;
}

function showLimits(limits: Limits): void {
  const { readSeconds, sourceSeconds, targetSeconds, socketSeconds, writeSeconds, copyRate, leastSeconds } = limits;
  const rate = (seconds: number): string => (1024 / seconds).toFixed(0);
  console.log(
    `\nlimits of this machine, MiB of the disk per second: reading ${rate(readSeconds)}, hash and compression ` +
      `${rate(sourceSeconds)} a core, check at the repository ${rate(targetSeconds)} a core, a socket ${rate(socketSeconds)}, ` +
      `writing what is stored ${rate(writeSeconds)}; copying memory ${copyRate.toFixed(0)}. At most ${rate(leastSeconds)}.`,
  );
}

/** On the repositories of the last full backup. `tracked`: with changed block tracking, or without. */
export async function increment({ image, peers, product, rounds }: Contest, tracked: boolean): Promise<Part> {
  const { sizeBytes } = image.first;
  const mode = tracked ? 'cbt' : 'comparison';
  const contenders: Contender[] = [{ name: OURS, run: () => product.session(mode) }];
  for (const { name, backUp, restore } of peers) if (restore) contenders.push({ name, run: backUp });
  const beforeRound = async (): Promise<void> => {
    await product.tell(image.change());
    if (!tracked) await product.tell([{ kind: 'tracking-lost' }]);
    await shell('sync', []);
  };
  const taken = await takeInTurn(contenders, { rounds, beforeRound });
  const title = `${CHANGED_BYTES / 2 ** 20} MIB CHANGED, ${tracked ? 'TRACKED' : 'NOT TRACKED'}`;
  const part: Part = { title, taken, bytes: sizeBytes, bars: [] };
  const must = tracked ? 8 : 2;
  part.bars = barsOf(part, tracked ? 'tracked changes' : 'comparison', { restic: must, borg: must });
  if (tracked) part.bars.push(await idleSession(part, product, rounds));
  showTaken(title, taken, sizeBytes);
  return part;
}

/** What a session costs besides its data. */
async function idleSession({ taken }: Part, product: Product, rounds: number): Promise<Bar> {
  const idle = await takeInTurn([{ name: IDLE, run: () => product.session('cbt') }], { rounds });
  taken.set(IDLE, idle.get(IDLE)!);
  return { what: 'session without changes: 0.8 s, of what it takes', is: 0.8 / idle.get(IDLE)!.seconds, must: 1 };
}

/** Byte for byte, before anything is timed. */
export async function proveRestore({ image, product }: Contest): Promise<void> {
  const { file } = await product.restore();
  await shell('cmp "$1" "$2"', [file, image.file]);
  await unlink(file);
  console.log('\nthe newest restore point has the bytes of the disk (cmp)');
}

/** To the disk, synced at the end. */
export async function restoreAll({ root, image, peers, product, rounds }: Contest): Promise<Part> {
  const into = path.join(root, 'restored');
  const before = cleared(into);
  let restored = '';
  const ours: Contender = {
    name: OURS,
    before,
    run: async () => {
      const { file, taken } = await product.restore();
      restored = file;
      return taken;
    },
    after: () => unlink(restored),
  };
  const theirs = peers.flatMap(({ name, restore }) =>
    restore ? [{ name, before, run: async () => [await restore(into), await shell('sync -f "$1"', [into])] }] : [],
  );
  const copy: Contender = {
    name: 'dd',
    before,
    run: () => shell('dd if="$1" of="$2/copy" bs=1M conv=fsync status=none', [image.file, into]),
  };
  const taken = await takeInTurn([ours, ...theirs, copy], { rounds });
  await before();
  const part: Part = { title: 'RESTORE', taken, bytes: image.first.sizeBytes, bars: [] };
  showTaken(part.title, taken, part.bytes);
  part.bars = barsOf(part, 'restore', { dd: 0.9, restic: 1.3 });
  return part;
}

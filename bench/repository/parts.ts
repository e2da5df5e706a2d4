/** What is measured, part by part: each shows its table and says how high its bars are reached. */
import path from 'node:path';
import type { Image } from './image.ts';
import { bytesOf, cleared, type Contender, shell, type Taken, takeInTurn } from './measure.ts';
import type { Peer } from './peers.ts';
import { type Bar, showTaken, timesAsFast } from './report.ts';
import { RESTORED, type Tidemark } from './tidemark.ts';

export type World = {
  image: Image;
  tidemarks: { tidemark: Tidemark; 'tidemark, encrypted': Tidemark };
  /** With next to nothing in it: what its verbs take is what they take to start, above all their threads. */
  starter: Tidemark;
  /** Those that are installed, by name. */
  peers: Map<string, Peer>;
  /** Folders for what is restored: on the disk, and in memory. */
  disk: string;
  memory: string;
};

const FILES = 'find "$1" -type f -print0 | xargs -0';
const readAll = (folder: string): Promise<string> => shell(`${FILES} cat > /dev/null`, [folder]);
/** Dropped from the page cache: the next read is the disk's. */
const forget = (folder: string): Promise<string> =>
  shell(`sync; ${FILES} -I{} dd if={} iflag=nocache count=0 status=none`, [folder]);
const startOf = (who: string): string => `(${who}, to start)`;

/** Without what it takes to start, which is the same however much there is. */
function lessStart(taken: Map<string, Taken>, who: string, names: readonly string[]): void {
  const start = taken.get(startOf(who))!;
  for (const name of names) {
    const { seconds, cpuSeconds } = taken.get(name)!;
    taken.set(name, { seconds: seconds - start.seconds, cpuSeconds: cpuSeconds - start.cpuSeconds });
  }
}

export async function verifyAll({ tidemarks, starter, peers, image }: World): Promise<Bar[]> {
  const ours = Object.entries(tidemarks);
  for (const { folder } of [...Object.values(tidemarks), ...peers.values()]) await readAll(folder);
  const taken = await takeInTurn([
    ...ours.map(([name, one]) => ({ name, run: () => one.check('full') })),
    { name: startOf('tidemark'), run: () => starter.check('full') },
    ...[...peers].flatMap(([name, peer]) => [
      { name, run: () => peer.verify() },
      { name: startOf(name), run: () => peer.verifyStart() },
    ]),
  ]);
  lessStart(taken, 'tidemark', Object.keys(tidemarks));
  for (const name of peers.keys()) lessStart(taken, name, [name]);
  showTaken('Everything verified, without what each takes to start', taken, image.sizeBytes);
  if (!peers.has('restic')) return [];
  const what = 'full check: times as fast as restic check --read-data';
  return ours.map(([name]) => ({ what: `${name}, ${what}`, is: timesAsFast(taken, name, 'restic'), must: 1.5 }));
}

export async function checkSums({ tidemarks: { tidemark }, starter }: World): Promise<Bar[]> {
  const { folder } = tidemark;
  const take = async (before: () => Promise<unknown>): Promise<Map<string, Taken>> => {
    const taken = await takeInTurn([
      { name: 'tidemark', before, run: () => tidemark.check('sums') },
      { name: 'cat', before, run: () => readAll(folder) },
      { name: startOf('tidemark'), run: () => starter.check('sums') },
    ]);
    lessStart(taken, 'tidemark', ['tidemark']);
    return taken;
  };
  const [cold, warm] = [await take(() => forget(folder)), await take(() => readAll(folder))];
  const bytes = await bytesOf(folder);
  showTaken('Sums of the stored bytes, page cache dropped before', cold, bytes);
  showTaken('Sums of the stored bytes, page cache warm', warm, bytes);
  return [
    { what: 'check of sums: part of the rate of cat, from disk', is: timesAsFast(cold, 'tidemark', 'cat'), must: 0.9 },
  ];
}

const oursInto = ({ tidemarks }: World, folder: string): Contender[] =>
  Object.entries(tidemarks).map(([name, one]) => ({ name, before: cleared(folder), run: () => one.restore(folder) }));

export async function restoreToDisk(world: World): Promise<Bar[]> {
  const { image, disk } = world;
  const copy = (): Promise<string> => shell('dd if="$1" of="$2/copy" bs=1M conv=fsync status=none', [image.file, disk]);
  const ours = oursInto(world, disk);
  const taken = await takeInTurn([...ours, { name: 'dd', before: cleared(disk), run: copy }]);
  showTaken('Restored to a file on the disk, synced; what it takes to start included', taken, image.sizeBytes);
  const what = 'restore to the disk: part of the rate of a raw copy';
  return ours.map(({ name }) => ({ what: `${name}, ${what}`, is: timesAsFast(taken, name, 'dd'), must: 0.9 }));
}

export async function restoreToMemory(world: World): Promise<Bar[]> {
  const { image, memory, peers, starter } = world;
  const before = cleared(memory);
  const ours = oursInto(world, memory);
  const start = { name: startOf('tidemark'), before, run: () => starter.restore(memory) };
  const theirs = [...peers].flatMap(([name, peer]) => [
    ...Object.entries(peer.restores).map(([way, restore]) => ({ name: way, before, run: () => restore(memory) })),
    { name: startOf(name), run: () => peer.restoreStart() },
  ]);
  const copy = (): Promise<string> => shell('dd if="$1" of="$2/copy" bs=1M status=none', [image.file, memory]);
  const taken = await takeInTurn([...ours, start, ...theirs, { name: 'dd', before, run: copy }]);
  lessStart(taken, 'tidemark', Object.keys(world.tidemarks));
  for (const [name, { restores }] of peers) lessStart(taken, name, Object.keys(restores));
  showTaken('Restored to a file in memory, without what each takes to start', taken, image.sizeBytes);
  const restics = Object.keys(peers.get('restic')?.restores ?? {});
  const best = restics.toSorted((a, b) => taken.get(a)!.seconds - taken.get(b)!.seconds)[0];
  if (best === undefined) return [];
  const what = `restore to memory: times as fast as ${best}`;
  return ours.map(({ name }) => ({ what: `${name}, ${what}`, is: timesAsFast(taken, name, best), must: 2 }));
}

/** A fast way to something else than the image is none. */
export async function proveRestores({ tidemarks, image, memory }: World): Promise<void> {
  for (const tidemark of Object.values(tidemarks)) {
    await cleared(memory)();
    await tidemark.restore(memory);
    await shell('cmp "$1" "$2"', [image.file, path.join(memory, RESTORED)]);
  }
}

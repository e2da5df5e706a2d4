/**
 * Opens the index: what is kept of it where that fits, then every pack that it does not cover, by footer. It may lag
 * behind the packs, never lead: entries of packs that are gone are not answered.
 */
import type { Seams } from '../../../schema/domain/seams.ts';
import type { RepositoryFile } from '../../../schema/repository/documents.ts';
import { listClosedPacks, readClosedPack, type PackListing, type PackName } from '../pack/pack-reader.ts';
import type { Storage } from '../storage/storage.ts';
import { openIndexFolder, type IndexFolder } from './index-folder.ts';
import { addRecords, newState, noteDead, type IndexState } from './index-state.ts';
import { MANIFEST_NAME, parseManifest, type IndexManifest } from './manifest.ts';
import { recordsOf } from './pack-records.ts';
import { DamagedPlaces, PackNumbers, type DamagedPlace } from './packs.ts';
import { createRecordIndex, type RecordIndex } from './record-index.ts';
import { SegmentStore } from './segment-store.ts';
import { openSegment, type Segment } from './segment.ts';
import { DELTA_ENTRIES, Upkeep, type PackShelf } from './upkeep.ts';

export type IndexOwner = {
  storage: Storage;
  indexFolder: string | IndexFolder;
  deltaEntries?: number | undefined;
  file: RepositoryFile;
  seams: Pick<Seams, 'log' | 'random'>;
};

export type OpenIndex = RecordIndex & {
  /** What it says of closed packs is on disk when it resolves, unless the folder refuses it. */
  flush(): Promise<void>;
  /** Resolves when nothing goes on behind the questions. */
  idle(): Promise<void>;
  /** Keeps what the next process could not read from the packs at once. */
  close(): Promise<void>;
};

/** `left`: records of packs still open because the disk is full. `damaged`: places that must not be answered. */
export function loadIndex(
  owner: IndexOwner,
  left: readonly PackListing[],
  damaged: Iterable<DamagedPlace> = [],
): Promise<OpenIndex> {
  const { storage, file, seams } = owner;
  const shelf: PackShelf = {
    list: () => listClosedPacks(storage),
    read: (name) => readClosedPack(storage, file.uuid, name, seams.log),
  };
  const { uuid, generation } = file;
  const { indexFolder, deltaEntries } = owner;
  const folder = typeof indexFolder === 'string' ? openIndexFolder(indexFolder) : indexFolder;
  return openIndex({ folder, shelf, uuid, generation, seams, left, damaged, deltaEntries });
}

export type IndexOptions = {
  folder: IndexFolder;
  shelf: PackShelf;
  uuid: string;
  generation: number;
  seams: IndexOwner['seams'];
  left?: readonly PackListing[];
  damaged?: Iterable<DamagedPlace>;
  /** Entries at which the delta becomes a segment. */
  deltaEntries?: number | undefined;
};

export async function openIndex(options: IndexOptions): Promise<OpenIndex> {
  const { folder, shelf, uuid, generation, deltaEntries = DELTA_ENTRIES } = options;
  const { log, random } = options.seams;
  const closed = await shelf.list();
  const damaged = new DamagedPlaces(options.damaged);
  const { state, nextSegment } = (await takeUp(options, closed, damaged)) ?? {
    state: newState(new PackNumbers(), damaged),
    nextSegment: 0,
  };
  const newSalt = (): number => Buffer.from(random.bytes(4)).readUInt32LE();
  const store = new SegmentStore(state, { folder, uuid, generation, newSalt }, nextSegment);
  const upkeep = new Upkeep(state, store, { shelf, log, deltaEntries });
  await store.removeUnused().catch((error: unknown) => {
    log.warn('the folder of the index is not as it should be', { error: String(error) });
  });
  await upkeep.load(closed);
  for (const listing of options.left ?? []) addRecords(state, recordsOf(listing));
  const index = createRecordIndex(state, upkeep);
  log.info('index opened', { records: index.recordCount(), packs: closed.length, segments: state.segments.length });
  upkeep.changed();
  return { ...index, flush: () => upkeep.flush(), idle: () => upkeep.idle(), close: () => upkeep.close() };
}

type Kept = { state: IndexState; nextSegment: number };

/** Null when there is none, when it is damaged, or when it is another repository's or generation's. */
async function takeUp(
  options: IndexOptions,
  closed: readonly PackName[],
  damaged: DamagedPlaces,
): Promise<Kept | null> {
  try {
    const bytes = await options.folder.readWhole(MANIFEST_NAME);
    return bytes && (await fromManifest(options.folder, parseManifest(bytes, options), closed, damaged));
  } catch (error) {
    options.seams.log.warn('the index is made anew from the packs', { error: String(error) });
    return null;
  }
}

async function fromManifest(
  folder: IndexFolder,
  manifest: IndexManifest,
  closed: readonly PackName[],
  damaged: DamagedPlaces,
): Promise<Kept> {
  const existing = new Set(closed.map(({ packId }) => packId));
  const packs = new PackNumbers({
    next: manifest.nextPack,
    packs: manifest.packs.filter(([, name]) => existing.has(name)),
  });
  const state = newState(packs, damaged);
  state.segments = await openSegments(folder, manifest);
  for (const segment of state.segments) noteDead(segment, packs);
  for (const [number, name] of manifest.packs) if (existing.has(name)) state.covered.add(number);
  return { state, nextSegment: manifest.nextSegment };
}

async function openSegments(folder: IndexFolder, manifest: IndexManifest): Promise<Segment[]> {
  const segments: Segment[] = [];
  try {
    for (const ref of manifest.segments) segments.push(await openSegment(folder, ref));
    return segments;
  } catch (error) {
    for (const segment of segments) await segment.release();
    throw error;
  }
}

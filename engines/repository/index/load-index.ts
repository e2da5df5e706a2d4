/**
 * Opens the index: the image of the last process where it fits, then every pack that it does not know, by footer.
 * The image may lag behind the packs, never lead: packs that are gone are dropped from it.
 */
import { rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import type { Log } from '../../../schema/domain/seams.ts';
import { crcOf } from '../../../schema/repository/digest.ts';
import type { RepositoryFile } from '../../../schema/repository/documents.ts';
import { listClosedPacks, readClosedPack, type PackListing } from '../pack/pack-reader.ts';
import { ensureFolder, storageError, withOpenFile } from '../storage/files.ts';
import type { Storage } from '../storage/storage.ts';
import { createRecordIndex, type IndexImage, type NewRecord, type RecordIndex } from './record-index.ts';

const CHUNK_BYTES = 64 * 16_384;
const MAX_HEADER_BYTES = 256 * 1024 * 1024;
/** Footers read side by side. */
const READS_AT_ONCE = 16;
/** So many packs read anew are worth a new image at once: a process that is always killed must not read them each time. */
const PACKS_WORTH_AN_IMAGE = 256;

type ImageHeader = {
  version: 1;
  uuid: string;
  generation: number;
  /** Closed packs the image covers; records of others are scanned again. */
  covered: string[];
  packs: string[];
  writers: string[];
  entryCount: number;
  chunkCrcs: number[];
};

const imagePath = (indexFolder: string): string => join(indexFolder, 'index');
export type IndexOwner = { storage: Storage; indexFolder: string; file: RepositoryFile; log: Log };

/** `covered`: packs of which every record is known, by their footers; packs written later are not among them. */
export type LoadedIndex = { index: RecordIndex; covered: string[] };

/** `left`: records of packs still open because the disk is full. `damaged`: places that must not be answered. */
export async function loadIndex(
  owner: IndexOwner,
  left: readonly PackListing[],
  damaged: Iterable<{ pack: string; offset: number }> = [],
): Promise<LoadedIndex> {
  const closed = await listClosedPacks(owner.storage);
  const bad = new Set([...damaged].map(({ pack, offset }) => `${pack} ${offset}`));
  const kept = await readImage(owner);
  const index = createRecordIndex(kept?.image);
  const existing = new Set(closed.map((name) => name.packId));
  const covered = new Set(kept?.covered.filter((pack) => existing.has(pack)));
  index.dropPacks(new Set(kept?.image.packs.filter((pack) => !covered.has(pack))));
  const unknown = closed.filter((name) => !covered.has(name.packId));
  for (let at = 0; at < unknown.length; at += READS_AT_ONCE) {
    const group = unknown.slice(at, at + READS_AT_ONCE);
    const listings = group.map((name) => readClosedPack(owner.storage, owner.file.uuid, name, owner.log));
    for (const listing of await Promise.all(listings)) {
      if (!listing) continue;
      applyListing(index, listing, bad);
      covered.add(listing.packId);
    }
    if (at % (READS_AT_ONCE * 64) === 0)
      owner.log.info('reading packs into the index', { packs: at + group.length, of: unknown.length });
  }
  for (const listing of left) applyListing(index, listing, bad);
  const loaded = { index, covered: [...covered] };
  owner.log.info('index opened', { records: index.recordCount(), packs: closed.length, readAnew: unknown.length });
  if (unknown.length >= PACKS_WORTH_AN_IMAGE) await keepImage(owner, loaded);
  return loaded;
}

function applyListing(index: RecordIndex, listing: PackListing, bad: ReadonlySet<string>): void {
  const records: NewRecord[] = [];
  for (const { header, offset } of listing.records) {
    if (header.kind === 'fill' || bad.has(`${listing.packId} ${offset}`)) continue;
    const { storedLength, rawLength, codec } = header;
    const place = { pack: listing.packId, offset, storedLength, rawLength, codec };
    records.push({ id: header.id, kind: header.kind, place, writer: header.restorePointId });
  }
  index.apply(records);
}

/** The next start reads every pack. */
export const forgetImage = (indexFolder: string): Promise<void> => rm(imagePath(indexFolder), { force: true });

/** Keeps the index for the next start; it must not change meanwhile. If it fails the packs are read again. */
export async function keepImage(owner: IndexOwner, loaded: LoadedIndex): Promise<void> {
  const { index, covered } = loaded;
  const { packs, writers, entryCount, chunks } = index.image();
  const { uuid, generation } = owner.file;
  const chunkCrcs = chunks.map((chunk) => crcOf(chunk));
  const header: ImageHeader = { version: 1, uuid, generation, covered, packs, writers, entryCount, chunkCrcs };
  try {
    await writeImage(imagePath(owner.indexFolder), Buffer.from(JSON.stringify(header)), chunks, owner.indexFolder);
  } catch (error) {
    owner.log.warn('the index was not kept: it will be read from the packs', { error: String(error) });
  }
}

async function writeImage(path: string, header: Buffer, chunks: Buffer[], folder: string): Promise<void> {
  const length = Buffer.alloc(8);
  length.writeUInt32LE(header.length, 0);
  length.writeUInt32LE(crcOf(header), 4);
  try {
    await ensureFolder(folder);
    await rm(path, { force: true });
    await withOpenFile(path, 'wx', async (handle) => {
      for (const part of [length, header, ...chunks]) await handle.writeFile(part);
    });
  } catch (error) {
    await rm(path, { force: true });
    throw storageError(error, path);
  }
}

async function parseImage(
  handle: FileHandle,
  owner: IndexOwner,
): Promise<{ image: IndexImage; covered: string[] } | null> {
  const length = await readExactly(handle, 8);
  const headerBytes = length.readUInt32LE(0);
  if (headerBytes > MAX_HEADER_BYTES || headerBytes > (await handle.stat()).size) return null;
  const text = await readExactly(handle, headerBytes);
  if (crcOf(text) !== length.readUInt32LE(4)) return null;
  const header = JSON.parse(text.toString()) as ImageHeader;
  if (header.version !== 1 || header.uuid !== owner.file.uuid || header.generation !== owner.file.generation)
    return null;
  const chunks: Buffer[] = [];
  for (const crc of header.chunkCrcs) {
    const chunk = await readExactly(handle, CHUNK_BYTES);
    if (crcOf(chunk) !== crc) return null;
    chunks.push(chunk);
  }
  const { packs, writers, entryCount } = header;
  return { image: { packs, writers, entryCount, chunks }, covered: header.covered };
}

/** Null when there is none, when it is damaged, or when it is another repository's or generation's. */
async function readImage(owner: IndexOwner): Promise<{ image: IndexImage; covered: string[] } | null> {
  try {
    return await withOpenFile(imagePath(owner.indexFolder), 'r', (handle) => parseImage(handle, owner));
  } catch {
    return null;
  }
}

async function readExactly(
  handle: { read(into: Buffer): Promise<{ bytesRead: number }> },
  count: number,
): Promise<Buffer> {
  const bytes = Buffer.alloc(count);
  for (let at = 0; at < count;) {
    const { bytesRead } = await handle.read(bytes.subarray(at));
    if (bytesRead === 0) throw new Error('the index image is cut short');
    at += bytesRead;
  }
  return bytes;
}

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
import type { Layout } from '../storage/layout.ts';
import { createRecordIndex, type IndexImage, type NewRecord, type RecordIndex } from './record-index.ts';

const CHUNK_BYTES = 64 * 16_384;
const MAX_HEADER_BYTES = 256 * 1024 * 1024;

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
export type IndexOwner = { layout: Layout; indexFolder: string; file: RepositoryFile; log: Log };

/** `covered`: packs of which every record is known, by their footers; packs written later are not among them. */
export type LoadedIndex = { index: RecordIndex; covered: string[] };

/** `left`: records of packs still open because the disk is full. */
export async function loadIndex(owner: IndexOwner, left: readonly PackListing[]): Promise<LoadedIndex> {
  const closed = await listClosedPacks(owner.layout);
  const kept = await readImage(owner);
  const index = createRecordIndex(kept?.image);
  const existing = new Set(closed.map((name) => name.packId));
  const covered = new Set(kept?.covered ?? []);
  for (const pack of kept?.image.packs ?? []) if (!existing.has(pack) || !covered.has(pack)) index.dropPack(pack);
  for (const name of closed) {
    if (covered.has(name.packId)) continue;
    applyListing(index, await readClosedPack(owner.layout, owner.file.uuid, name, owner.log));
  }
  for (const listing of left) applyListing(index, listing);
  owner.log.info('index opened', { records: index.recordCount(), packs: closed.length, fromImage: covered.size });
  return { index, covered: closed.map((name) => name.packId) };
}

function applyListing(index: RecordIndex, listing: PackListing): void {
  const records: NewRecord[] = [];
  for (const { header, offset } of listing.records) {
    if (header.kind === 'fill') continue;
    const { storedLength, rawLength, codec } = header;
    const place = { pack: listing.packId, offset, storedLength, rawLength, codec };
    records.push({ id: header.id, kind: header.kind, place, writer: header.restorePointId });
  }
  index.apply(records);
}

export const forgetImage = (indexFolder: string): Promise<void> => rm(imagePath(indexFolder), { force: true });

/** Keeps the index for the next start. Nothing is lost if it fails: then the packs are read again. */
export async function saveImage(owner: IndexOwner, loaded: LoadedIndex): Promise<void> {
  const { index, covered } = loaded;
  const image = index.image();
  const chunks = image.chunks.map((chunk) => Buffer.from(chunk));
  const header: ImageHeader = {
    version: 1,
    uuid: owner.file.uuid,
    generation: owner.file.generation,
    covered,
    packs: image.packs,
    writers: image.writers,
    entryCount: image.entryCount,
    chunkCrcs: chunks.map((chunk) => crcOf(chunk)),
  };
  await writeImage(imagePath(owner.indexFolder), Buffer.from(JSON.stringify(header)), chunks, owner.indexFolder);
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

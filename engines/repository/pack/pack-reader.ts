/** Lists the records of packs: closed ones by footer, torn ones by scan; finishes torn packs at start. */
import { rm, stat, type FileHandle } from 'node:fs/promises';
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { sumOf } from '../../../schema/repository/digest.ts';
import {
  FOOTER_ENTRY_BYTES,
  FOOTER_TRAILER_BYTES,
  MAX_PACK_RECORDS,
  PACK_HEADER_BYTES,
  RECORD_HEADER_BYTES,
} from '../../../schema/repository/limits.ts';
import {
  decodeFooterEntries,
  decodePackHeader,
  decodeTrailer,
  encodeFooter,
  type PackContents,
  type PackRecord,
} from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, encodeRecordHeader } from '../../../schema/repository/record.ts';
import { isReadFailure, listFolder, storageError, syncFolder, withOpenFile, writeFullySync } from '../storage/files.ts';
import type { Layout } from '../storage/layout.ts';
import { publishPack } from './pack-writer.ts';
import { readFully } from './record-source.ts';

export type PackListing = { packId: string; contents: PackContents; records: PackRecord[] };

async function readAt(handle: FileHandle, position: number, lengthBytes: number, path: string): Promise<Buffer> {
  const bytes = Buffer.alloc(lengthBytes);
  return bytes.subarray(0, await readFully(handle, bytes, position, path));
}

async function readFooter(handle: FileHandle, fileBytes: number, path: string): Promise<PackRecord[] | null> {
  if (fileBytes < PACK_HEADER_BYTES + FOOTER_TRAILER_BYTES) return null;
  const tail = await readAt(handle, fileBytes - FOOTER_TRAILER_BYTES, FOOTER_TRAILER_BYTES, path);
  const trailer = decodeTrailer(tail, fileBytes);
  if (!trailer) return null;
  const entries = await readAt(handle, trailer.entriesOffset, trailer.count * FOOTER_ENTRY_BYTES, path);
  return decodeFooterEntries(entries, trailer);
}

/**
 * Sound records up to the first header that fails or payload that is cut; one with a damaged payload is left out, since
 * those behind it may be needed. `endBytes`: where the last sound one ends.
 */
async function scan(handle: FileHandle, path: string): Promise<{ records: PackRecord[]; endBytes: number }> {
  const records: PackRecord[] = [];
  let endBytes = PACK_HEADER_BYTES;
  for (let at = PACK_HEADER_BYTES; records.length < MAX_PACK_RECORDS;) {
    const header = decodeRecordHeader(await readAt(handle, at, RECORD_HEADER_BYTES, path));
    if (!header) break;
    const payload = await readAt(handle, at + RECORD_HEADER_BYTES, header.storedLength, path);
    if (payload.length !== header.storedLength) break;
    const offset = at;
    at += RECORD_HEADER_BYTES + header.storedLength;
    if (sumOf(payload).compare(header.payloadSum) !== 0) continue;
    records.push({ header, offset });
    endBytes = at;
  }
  return { records, endBytes };
}

/** What a pack file holds; null when its header is not that of pack `packId` of this repository. */
async function inspect(handle: FileHandle, path: string, packId: string, uuid: string) {
  const header = decodePackHeader(await readAt(handle, 0, PACK_HEADER_BYTES, path));
  if (header?.packId !== packId || header.uuid !== uuid) return null;
  const footer = await readFooter(handle, (await handle.stat()).size, path);
  if (footer) return { contents: header.contents, finished: true, records: footer, endBytes: 0 };
  return { contents: header.contents, finished: false, ...(await scan(handle, path)) };
}

async function withFile<T>(path: string, work: (handle: FileHandle) => Promise<T>): Promise<T> {
  try {
    return await withOpenFile(path, 'r', work);
  } catch (error) {
    throw storageError(error, path);
  }
}

export type PackName = { contents: PackContents; packId: string };

/** Closed packs on both shelves. */
export async function listClosedPacks(layout: Layout): Promise<PackName[]> {
  const names: PackName[] = [];
  for (const contents of ['blocks', 'pages'] as const) {
    for (const shelf of await listFolder(layout.shelfOf(contents))) {
      const packs = await listFolder(`${layout.shelfOf(contents)}/${shelf.name}`);
      names.push(...packs.map((pack) => ({ contents, packId: pack.name })));
    }
  }
  return names;
}

/** Records of a closed pack; null, and an error in the log, when the medium or the header does not give them. */
export async function readClosedPack(
  layout: Layout,
  uuid: string,
  name: PackName,
  log: Log,
): Promise<PackListing | null> {
  const path = layout.closedPack(name.contents, name.packId);
  const found = await inspectFile(path, name.packId, uuid, log);
  if (found === undefined) return null;
  if (!found) log.error('pack is damaged: no sound header', { path });
  else if (!found.finished) log.warn('pack has no sound footer: scanned', { path, records: found.records.length });
  return found && { ...name, records: found.records };
}

/**
 * Finishes and publishes what a process left in open/packs when it died. Call it as the only owner.
 * On a full disk a pack stays where it is, readable all the same: those are returned.
 */
export async function recoverOpenPacks(layout: Layout, uuid: string, log: Log): Promise<PackListing[]> {
  const left: PackListing[] = [];
  for (const file of await listFolder(layout.openPacks)) {
    const listing = await recoverPack(layout, uuid, file.name, log);
    if (listing) left.push(listing);
  }
  return left;
}

/** As `inspect`; undefined: the medium does not give it. It is left as it is, and its blocks are sent again. */
async function inspectFile(path: string, packId: string, uuid: string, log: Log) {
  try {
    return await withFile(path, (handle) => inspect(handle, path, packId, uuid));
  } catch (error) {
    if (!isReadFailure(error)) throw error;
    log.error('pack cannot be read', { path, error: String(error) });
    return undefined;
  }
}

async function recoverPack(layout: Layout, uuid: string, packId: string, log: Log): Promise<PackListing | null> {
  const path = layout.openPack(packId);
  const found = await inspectFile(path, packId, uuid, log);
  if (found === undefined) return null;
  if (!found && (await stat(path)).size > PACK_HEADER_BYTES) {
    log.error('open pack is damaged: no sound header; left as it is', { path });
    return null;
  }
  if (!found || found.records.length === 0) {
    log.info('open pack without a sound record removed', { path });
    await rm(path, { force: true });
    await syncFolder(layout.openPacks);
    return null;
  }
  try {
    if (!found.finished) await finish(path, found.records, found.endBytes);
    await publishPack(layout, found.contents, packId);
  } catch (error) {
    if (errorCodeOf(error) !== 'REPOSITORY_FULL') throw error;
    log.warn('no space to finish an open pack: left open', { path });
    return { packId, contents: found.contents, records: found.records };
  }
  log.info('open pack recovered', { path, records: found.records.length });
  return null;
}

/** The torn tail goes, the footer comes, and everything becomes durable: the scan may have read it from memory only. */
async function finish(path: string, records: PackRecord[], endBytes: number): Promise<void> {
  const entries = records.map(({ header, offset }) => ({ header: encodeRecordHeader(header), offset }));
  try {
    await withOpenFile(path, 'r+', async (handle) => {
      await handle.truncate(endBytes);
      writeFullySync(handle.fd, encodeFooter(entries, endBytes), endBytes);
      await handle.sync();
    });
  } catch (error) {
    throw storageError(error, path);
  }
}

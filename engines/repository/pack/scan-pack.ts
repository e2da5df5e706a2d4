/** What a pack file holds: by its footer, or by a scan where there is none, or none that counts. */
import type { RestorePointId } from '../../../schema/domain/ids.ts';
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
  type PackContents,
  type PackRecord,
  type PackTrailer,
} from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, findRecordMagic, type RecordHeader } from '../../../schema/repository/record.ts';
import type { StoredFile } from '../storage/store.ts';

const SEARCH_BYTES = 1024 * 1024;

/** Whether a restore point is one of this repository. */
export type WriterCheck = (writer: RestorePointId) => Promise<boolean>;
/** `uuid` of the repository. */
export type PackIdentity = { packId: string; uuid: string; isOurs: WriterCheck };

/** `endBytes`: where the last sound record ends. */
export type PackScan = { contents: PackContents; records: PackRecord[]; endBytes: number };

/** The sound records of a pack; null when its header is not that of pack `packId` of this repository. */
export async function scanPack(file: StoredFile, identity: PackIdentity): Promise<PackScan | null> {
  const contents = await contentsOf(file, identity);
  return contents && { contents, ...(await scan(file, identity.isOurs)) };
}

/**
 * Records that a closed pack lists; `scanned` when its footer fails and they had to be looked for. Of a pack that was
 * closed only: before its sync a footer may be on disk, and the records that it lists not.
 */
export async function listPack(
  file: StoredFile,
  identity: PackIdentity,
): Promise<{ contents: PackContents; records: PackRecord[]; scanned: boolean } | null> {
  const contents = await contentsOf(file, identity);
  if (!contents) return null;
  const listed = await readFooter(file, await file.lengthBytes());
  const records = listed ?? (await scan(file, identity.isOurs)).records;
  return { contents, records, scanned: listed === null };
}

async function contentsOf(file: StoredFile, { packId, uuid }: PackIdentity): Promise<PackContents | null> {
  const header = decodePackHeader(await readAt(file, 0, PACK_HEADER_BYTES));
  return header?.packId === packId && header.uuid === uuid ? header.contents : null;
}

/** Fewer bytes only at the end of the file. */
export async function readAt(file: StoredFile, position: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.allocUnsafe(lengthBytes);
  return bytes.subarray(0, await file.read(bytes, position));
}

/** Null when it is not that of a file of `fileBytes`. */
export async function readTrailer(file: StoredFile, fileBytes: number): Promise<PackTrailer | null> {
  if (fileBytes < PACK_HEADER_BYTES + FOOTER_TRAILER_BYTES) return null;
  return decodeTrailer(await readAt(file, fileBytes - FOOTER_TRAILER_BYTES, FOOTER_TRAILER_BYTES), fileBytes);
}

/** Sorted by id; null when it is not sound. */
export async function readFooter(file: StoredFile, fileBytes: number): Promise<PackRecord[] | null> {
  const trailer = await readTrailer(file, fileBytes);
  if (!trailer) return null;
  return decodeFooterEntries(await readAt(file, trailer.entriesOffset, trailer.count * FOOTER_ENTRY_BYTES), trailer);
}

/**
 * Sound records, one behind the other; one with a damaged payload is left out. Behind a header that fails the next sound
 * record is searched for: it may have been durable for long, whatever became of those before it.
 */
async function scan(file: StoredFile, isOurs: WriterCheck): Promise<{ records: PackRecord[]; endBytes: number }> {
  const records: PackRecord[] = [];
  const writers = new Set<RestorePointId>();
  const isTrusted: WriterCheck = async (writer) => writers.has(writer) || (await isOurs(writer));
  let endBytes = PACK_HEADER_BYTES;
  for (let at: number | null = PACK_HEADER_BYTES; at !== null && records.length < MAX_PACK_RECORDS;) {
    const found = await readRecord(file, at);
    if (found === 'cut') break;
    if (!found) at = await findRecord(file, at + 1, isTrusted);
    else {
      if (found.isSound) {
        records.push({ header: found.header, offset: at });
        writers.add(found.header.restorePointId);
        endBytes = found.endBytes;
      }
      at = found.endBytes;
    }
  }
  return { records, endBytes };
}

type FoundRecord = { header: RecordHeader; isSound: boolean; endBytes: number };

/** Null: no header is there; 'cut': the file ends before the payload does. */
async function readRecord(file: StoredFile, at: number): Promise<FoundRecord | 'cut' | null> {
  const header = decodeRecordHeader(await readAt(file, at, RECORD_HEADER_BYTES));
  if (!header) return null;
  const payload = await readAt(file, at + RECORD_HEADER_BYTES, header.storedLength);
  if (payload.length !== header.storedLength) return 'cut';
  const isSound = sumOf(payload).compare(header.payloadSum) === 0;
  return { header, isSound, endBytes: at + RECORD_HEADER_BYTES + header.storedLength };
}

/**
 * Offset of the next sound record from `from` on, or null. Only of a writer that is trusted: a payload may hold the pack
 * of another repository, or what a guest would like to be taken for a record; neither knows our restore points.
 */
async function findRecord(file: StoredFile, from: number, isTrusted: WriterCheck): Promise<number | null> {
  for (let at = from; ;) {
    const piece = await readAt(file, at, SEARCH_BYTES);
    for (let hit = findRecordMagic(piece, 0); hit >= 0; hit = findRecordMagic(piece, hit + 1)) {
      const header = decodeRecordHeader(await readAt(file, at + hit, RECORD_HEADER_BYTES));
      if (!header || !(await isTrusted(header.restorePointId))) continue;
      const found = await readRecord(file, at + hit);
      if (found && found !== 'cut' && found.isSound) return at + hit;
    }
    if (piece.length < SEARCH_BYTES) return null;
    // A magic may lie across the border.
    at += SEARCH_BYTES - 3;
  }
}

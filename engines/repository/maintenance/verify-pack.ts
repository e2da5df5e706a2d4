/**
 * Reads a closed pack from its first record to its last, in the order of the file: whether each record is what was
 * written. For a thread of its own: hashes and decodes. Memory: two buffers of 4 MiB, and one record decoded.
 */
import { releaseMemory } from '../../../schema/domain/memory.ts';
import type { Codec } from '../../../schema/domain/states.ts';
import { asBuffer, digestOf, sumOf } from '../../../schema/repository/digest.ts';
import { RECORD_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { isPageLength } from '../../../schema/repository/map-page.ts';
import type { PackRecord } from '../../../schema/repository/pack.ts';
import { decodeRecordHeader, isSameRecord, type RecordHeader } from '../../../schema/repository/record.ts';
import type { Vault } from '../../../schema/repository/vault.ts';
import type { PackName } from '../pack/pack-reader.ts';
import { damageOf, type Fault } from '../restore-point/damages.ts';
import { layout } from '../storage/layout.ts';
import type { Storage } from '../storage/storage.ts';
import type { StoredFile } from '../storage/store.ts';
import { outlineOf } from './pack-outline.ts';
import { readRuns } from './read-runs.ts';

/** `sums`: of the stored bytes, for which no key is needed. `full`: opened, decoded, and against the id. */
export type VerifyDepth = 'sums' | 'full';
/** `doubted`: offsets of records that were damaged when they were last read. */
export type VerifyJob = PackName & { depth: VerifyDepth; doubted?: readonly number[] };

/** `id` in hex; both null: something of the pack as a whole. */
export type FoundInPack = Fault & { kind: 'record' | 'page' | 'pack'; id: string | null; offset: number | null };

/**
 * `fileBytes` null: there is no such pack. `sound`: of those doubted. `offsets`: of all records that were found, where no
 * footer says which there should be.
 */
export type PackVerdict = {
  fileBytes: number | null;
  found: FoundInPack[];
  sound: number[];
  offsets: number[] | null;
};

export type PackShelf = {
  storage: Storage;
  vault: Vault;
  uuid: string;
  /** Null when the payload does not decode to exactly `rawLength` bytes. */
  decode: (codec: Codec, payload: Buffer, rawLength: number) => Buffer | null;
};

/** STORAGE_ERROR for what is no damage. */
export async function verifyPack(shelf: PackShelf, job: VerifyJob): Promise<PackVerdict> {
  const file = await shelf.storage.store.open(layout.closedPack(job.contents, job.packId));
  if (!file) return { fileBytes: null, found: [], sound: [], offsets: null };
  try {
    return await verifyFile(shelf, job, file);
  } finally {
    await file.close();
  }
}

async function verifyFile(shelf: PackShelf, job: VerifyJob, file: StoredFile): Promise<PackVerdict> {
  const { records, hasFooter, faults } = await outlineOf(file, { packId: job.packId, uuid: shelf.uuid });
  const found: FoundInPack[] = faults.map((why) => ({ kind: 'pack', id: null, offset: null, ...damaged(why) }));
  const doubted = new Set(job.doubted);
  const sound: number[] = [];
  for await (const { record, stored } of readRuns(file, records)) {
    const fault = stored === null ? damaged(UNREADABLE) : faultOf(shelf, job, record, stored);
    const { header, offset } = record;
    if (fault === null && doubted.has(offset)) sound.push(offset);
    if (fault === null) continue;
    const kind = header.kind === 'page' ? 'page' : 'record';
    found.push({ kind, id: asBuffer(header.id).toString('hex'), offset, ...fault });
  }
  const offsets = hasFooter ? null : records.map(({ offset }) => offset);
  return { fileBytes: await file.lengthBytes(), found, sound, offsets };
}

const UNREADABLE = 'the medium does not give it';
const damaged = (why: string): Fault => ({ code: 'DAMAGED_BLOCK', why });

/** Null for a record that is sound. `stored`: header and payload, as far as they are there. */
export function faultOf(
  shelf: Pick<PackShelf, 'vault' | 'decode'>,
  { packId, depth }: Pick<VerifyJob, 'packId' | 'depth'>,
  { header: expected, offset }: PackRecord,
  stored: Buffer,
): Fault | null {
  const header = decodeRecordHeader(stored);
  if (stored.byteLength < RECORD_HEADER_BYTES) return damaged('it is cut short');
  if (!header) return damaged('its header is damaged');
  const payload = stored.subarray(RECORD_HEADER_BYTES);
  const isFull = depth === 'full' && header.kind !== 'fill';
  if (!isSameRecord(header, expected)) {
    // Sound, and not that of the footer: the payload shows whether somebody made it so.
    const fault = isFull ? openedFault(shelf, header, payload, { pack: packId, offset }) : null;
    return fault?.code === 'TAMPERED' ? fault : damaged('its header differs from the footer');
  }
  if (payload.byteLength < header.storedLength) return damaged('it is cut short');
  if (isFull) return openedFault(shelf, header, payload, { pack: packId, offset });
  return sumOf(payload).compare(header.payloadSum) === 0 ? null : damaged('its payload is damaged');
}

function openedFault(
  shelf: Pick<PackShelf, 'vault' | 'decode'>,
  header: RecordHeader,
  payload: Buffer,
  at: { pack: string; offset: number },
): Fault | null {
  try {
    const encoded = shelf.vault.openRecord(header, payload, at);
    const fault = contentFault(shelf, header, encoded);
    if (encoded.buffer !== payload.buffer) releaseMemory(encoded);
    return fault === null ? null : damaged(fault);
  } catch (error) {
    const found = damageOf(error);
    if (!found) throw error;
    return { code: found.code, why: found.why };
  }
}

function contentFault(
  { vault, decode }: Pick<PackShelf, 'vault' | 'decode'>,
  { kind, codec, rawLength, id }: RecordHeader,
  encoded: Uint8Array,
): string | null {
  const content = decode(codec, asBuffer(encoded), rawLength);
  if (!content) return 'it does not decode';
  const isAsNamed = Buffer.compare(vault.idOf(digestOf(content)), id) === 0;
  if (content.buffer !== encoded.buffer) releaseMemory(content);
  if (!isAsNamed) return 'it is not what its id says';
  return kind === 'page' && !isPageLength(rawLength) ? 'it is no map page' : null;
}

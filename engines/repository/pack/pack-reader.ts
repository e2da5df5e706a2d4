/** Lists the records of packs: closed ones by footer, torn ones by scan; finishes torn packs at start. */
import { errorCodeOf } from '../../../schema/domain/errors.ts';
import type { Log } from '../../../schema/domain/seams.ts';
import { isId128 } from '../../../schema/repository/digest.ts';
import { PACK_HEADER_BYTES } from '../../../schema/repository/limits.ts';
import { encodeFooter, type PackContents, type PackRecord } from '../../../schema/repository/pack.ts';
import { encodeRecordHeader } from '../../../schema/repository/record.ts';
import { isReadFailure } from '../storage/files.ts';
import { layout, packIdOf } from '../storage/layout.ts';
import type { StagingFile } from '../storage/staging.ts';
import type { Storage } from '../storage/storage.ts';
import type { StoredFile } from '../storage/store.ts';
import { createWriterCheck } from './known-writers.ts';
import { listPack, type PackIdentity, type PackScan, scanPack } from './scan-pack.ts';

/** `scanned`: its footer is not sound, so these are the records that were found: there may be others that are sound. */
export type PackListing = { packId: string; contents: PackContents; records: PackRecord[]; scanned?: boolean };
export type PackName = { contents: PackContents; packId: string };

/** Closed packs on both shelves. */
export async function listClosedPacks({ store }: Storage): Promise<PackName[]> {
  const names: PackName[] = [];
  for (const contents of ['blocks', 'pages'] as const) {
    for (const name of await store.list(layout.shelfOf(contents))) {
      const packId = packIdOf(contents, name);
      if (packId !== null) names.push({ contents, packId });
    }
  }
  return names;
}

type PackFile = { path: string; log: Log; open: () => Promise<StoredFile | null> };

/** What `read` gives; null: the medium does not give it, or it is gone. */
async function readPack<T>({ path, log, open }: PackFile, read: (file: StoredFile) => Promise<T>): Promise<T | null> {
  const file = await open();
  if (!file) return null;
  try {
    return await read(file);
  } catch (error) {
    if (!isReadFailure(error)) throw error;
    log.error('pack cannot be read', { path, error: String(error) });
    return null;
  } finally {
    await file.close();
  }
}

/** Records of a closed pack; null, and an error in the log, when the medium or the header does not give them. */
export function readClosedPack(
  storage: Storage,
  uuid: string,
  { contents, packId }: PackName,
  log: Log,
): Promise<PackListing | null> {
  const { store } = storage;
  const name = layout.closedPack(contents, packId);
  const isOurs = createWriterCheck(storage);
  return readListing({ packId, uuid, isOurs, path: store.locate(name), log, open: () => store.open(name) });
}

/** The same of a pack in the trash. */
export function readTrashedPack(
  storage: Storage,
  uuid: string,
  { contents, packId, epoch }: PackName & { epoch: number },
  log: Log,
): Promise<PackListing | null> {
  const { store } = storage;
  const name = layout.closedPack(contents, packId);
  const path = `${store.locate(name)} in the trash of epoch ${epoch}`;
  const isOurs = createWriterCheck(storage);
  return readListing({ packId, uuid, isOurs, path, log, open: () => store.openTrashed({ epoch, name }) });
}

async function readListing(pack: PackFile & PackIdentity): Promise<PackListing | null> {
  const { packId, path, log } = pack;
  const read = await readPack(pack, async (file) => ({ found: await listPack(file, pack) }));
  if (!read) return null;
  const { found } = read;
  if (!found) log.error('pack is damaged: no sound header', { path });
  else if (found.scanned) log.warn('pack has no sound footer: scanned', { path, records: found.records.length });
  return found && { ...found, packId };
}

/**
 * Finishes and publishes what a process left in open/packs when it died. Call it as the only owner.
 * On a full disk a pack stays where it is, readable all the same: those are returned.
 */
export async function recoverOpenPacks(storage: Storage, uuid: string, log: Log): Promise<PackListing[]> {
  const left: PackListing[] = [];
  for (const packId of (await storage.staging.list(layout.openPacks)).filter(isId128)) {
    const listing = await recoverPack(storage, uuid, packId, log);
    if (listing) left.push(listing);
  }
  return left;
}

/** What cannot be read is left as it is, and its blocks are sent again. */
async function recoverPack(storage: Storage, uuid: string, packId: string, log: Log): Promise<PackListing | null> {
  const { staging } = storage;
  const name = layout.openPack(packId);
  const path = staging.locate(name);
  const identity = { packId, uuid, isOurs: createWriterCheck(storage) };
  const read = await readPack({ path, log, open: () => staging.open(name) }, async (file) => ({
    bytes: await file.lengthBytes(),
    found: await scanPack(file, identity),
  }));
  if (!read) return null;
  const { found, bytes } = read;
  if (!found && bytes > PACK_HEADER_BYTES) {
    log.error('open pack is damaged: no sound header; left as it is', { path });
    return null;
  }
  if (!found || found.records.length === 0) {
    log.info('open pack without a sound record removed', { path });
    await staging.remove(name);
    return null;
  }
  if (await finishAndPublish(storage, packId, found)) {
    log.info('open pack recovered', { path, records: found.records.length });
    return null;
  }
  log.warn('no space to finish an open pack: left open', { path });
  return { packId, contents: found.contents, records: found.records };
}

/** False when there is no space; its records are durable even so: the scan may have read them from memory only. */
async function finishAndPublish(storage: Storage, packId: string, found: PackScan): Promise<boolean> {
  const file = await storage.staging.openFile(layout.openPack(packId));
  try {
    await file.cutBack(found.endBytes);
    const whole = await appendFooter(file, found);
    await file.finish();
    if (!whole) return false;
    await storage.store.put(layout.closedPack(found.contents, packId), layout.openPack(packId));
    return true;
  } catch (error) {
    if (errorCodeOf(error) === 'REPOSITORY_FULL') return false;
    throw error;
  } finally {
    file.close();
  }
}

/** False when there is no space for it; the file then ends with its records. */
async function appendFooter(file: StagingFile, { records, endBytes }: PackScan): Promise<boolean> {
  const entries = records.map(({ header, offset }) => ({ header: encodeRecordHeader(header), offset }));
  try {
    await file.append(encodeFooter(entries, endBytes));
    return true;
  } catch (error) {
    if (errorCodeOf(error) === 'REPOSITORY_FULL' && !file.isBroken()) return false;
    throw error;
  }
}

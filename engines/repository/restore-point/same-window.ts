/** A window of a comparison that is what the base has: told by one digest, so its page is not looked at block by block. */
import type { FinishedWindow } from '../../../schema/domain/seams.ts';
import { digestOf, isZero } from '../../../schema/repository/digest.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import type { ClassSums, LedgerRecord } from '../../../schema/repository/ledger.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf } from '../../../schema/repository/map-page.ts';
import { isBaseSound } from './also-read.ts';
import { baseMapOf, commonBlocksOf, resolves } from './base-view.ts';
import { soundLeaf } from './page-reader.ts';
import type { Parts } from './parts.ts';
import { blocksOfWindow, protocolError } from './window-frame.ts';

export type SameWindowParts = Pick<Parts, 'pages' | 'index' | 'soundMaps' | 'damages'>;
/** `digest`: of the entries of the window's blocks, one behind the other. */
export type ComparedWindow = { windowIndex: number; digest: Uint8Array; declared: FinishedWindow['declared'] };

/** Null: it differs, or the base lacks a page or a record of it. PROTOCOL_ERROR: the sums are not those of these entries. */
export async function frameOfSame(
  parts: SameWindowParts,
  disk: HeadDisk,
  fence: number,
  { windowIndex, digest, declared }: ComparedWindow,
): Promise<LedgerRecord | null> {
  const { first, count } = blocksOfWindow(disk, windowIndex);
  const map = baseMapOf(disk);
  if (!map || first + count > commonBlocksOf(disk)) return null;
  // A window is a part of one leaf, or all of it.
  const page = await soundLeaf(parts.pages, map, Math.floor(first / PAGE_ENTRIES));
  const from = (first % PAGE_ENTRIES) * DIGEST_BYTES;
  const entries = page?.subarray(from, from + count * DIGEST_BYTES);
  if (!entries || digestOf(entries).compare(digest) !== 0) return null;
  const look = { disk, first, entries };
  if (!isBaseSound(parts, disk) && !resolvesAll(parts, look)) return null;
  checkSums(look, declared);
  const { number, binding } = disk;
  const place = { disk: number, binding, fence, firstWindow: windowIndex, windowCount: 1 };
  return { kind: 'window', ...place, declared: { ...declared }, unchanged: { ...declared }, entries: [] };
}

type Look = { disk: HeadDisk; first: number; entries: Uint8Array };

function* blocksOf({ disk, first, entries }: Look): Generator<{ entry: Uint8Array; length: number }> {
  for (let at = 0; at < entries.byteLength / DIGEST_BYTES; at += 1)
    yield { entry: entryOf(entries, at), length: blockLengthOf(first + at, disk.plan.sizeBytes, disk.blockSize) };
}

function resolvesAll({ index }: SameWindowParts, look: Look): boolean {
  for (const { entry, length } of blocksOf(look)) if (!resolves(index, entry, length)) return false;
  return true;
}

function checkSums(look: Look, { notReadBytes, unallocatedBytes, zeroBytes, dataBytes }: ClassSums): void {
  const sums = { empty: 0, data: 0 };
  for (const { entry, length } of blocksOf(look)) sums[isZero(entry) ? 'empty' : 'data'] += length;
  if (notReadBytes === 0 && unallocatedBytes + zeroBytes === sums.empty && dataBytes === sums.data) return;
  const told = `${notReadBytes} bytes not read, ${unallocatedBytes + zeroBytes} empty, ${dataBytes} of data`;
  throw protocolError(look.disk, `a window that is as in the base has ${sums.empty} empty bytes, not ${told}`);
}

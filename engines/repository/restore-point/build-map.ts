/**
 * The finished map of a disk, from the base's map and the windows of the ledger: leaf by leaf, one page per level in
 * memory. Leaves of which nothing was sent are taken over by digest. On the way every block is counted in its class.
 */
import { setImmediate as nextTurn } from 'node:timers/promises';
import { TidemarkError } from '../../../schema/domain/errors.ts';
import { WINDOW_BYTES } from '../../../schema/domain/extents.ts';
import type { Conservation } from '../../../schema/domain/restore-point.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { blockLengthOf, entryOf, leafCountOf, ZERO_ENTRY } from '../../../schema/repository/map-page.ts';
import { BlockAccount, notConserved } from './block-account.ts';
import { isBaseSound } from './also-read.ts';
import { baseMapOf, hasBaseBlock, resolves } from './base-view.ts';
import type { DigestIndex } from './digest-index.ts';
import { createMapWriter } from './map-writer.ts';
import { blocksOf, type OpenDisk, type OpenPoint } from './open-point.ts';
import { soundLeaf, soundOrNull } from './page-reader.ts';
import type { Parts } from './parts.ts';
import type { FirstReferences } from './first-references.ts';
import { baseLost } from './window-frame.ts';
import { createWindowReader, type WindowView } from './window-view.ts';

/** After so many leaves other work of the process gets its turn. */
const LEAVES_PER_TURN = 64;

export type FinishedMap = { root: string; height: number; conservation: Conservation };
export type MapJob = Pick<Parts, 'index' | 'pages' | 'pageStore' | 'soundMaps' | 'damages'> & {
  point: OpenPoint;
  disk: OpenDisk;
  firsts: FirstReferences;
};

/**
 * NOT_CONSERVED: a window is missing, a block stands on nothing, or the sums differ from the source's account.
 * TRACKING_LOST: a block stands on the base, which has lost it since. DAMAGED_BLOCK: one that was sent is lost.
 */
export async function buildMap(job: MapJob): Promise<FinishedMap> {
  try {
    return await makeMap(job);
  } catch (error) {
    job.pageStore.forget();
    throw error;
  }
}

async function makeMap(job: MapJob): Promise<FinishedMap> {
  const { point, disk, pageStore } = job;
  const { head } = disk;
  const writer = createMapWriter((page) => pageStore.put(page, point.head.restorePointId));
  const account = new BlockAccount(head);
  const windows = createWindowReader(point.ledger, disk);
  const leafCount = leafCountOf(head.plan.sizeBytes, head.blockSize);
  const lookAtBase = !isBaseSound(job, head);
  for (let leaf = 0; leaf < leafCount; leaf += 1) {
    const parts = await windows.ofLeaf(leaf);
    for (const part of parts) account.declare(part);
    const isUntouched = parts.every((part) => part.entries.length === 0);
    const shared = isUntouched && !lookAtBase ? await sharedLeaf(job, leaf) : null;
    if (shared) {
      account.takeOver(leaf);
      writer.addLeafDigest(shared);
    } else writer.addLeaf(await newLeaf(job, { leaf, parts, lookAtBase }, account));
    if (pageStore.isFull()) await pageStore.flush();
    if (leaf % LEAVES_PER_TURN === 0) await nextTurn();
  }
  const { root, height } = writer.finish();
  await pageStore.flush();
  return { root, height, conservation: account.conserved() };
}

const entriesOfLeaf = (blockCount: number, leaf: number): number =>
  Math.min(PAGE_ENTRIES, blockCount - leaf * PAGE_ENTRIES);

/** Digest of the base's leaf where the new map has the very same one; null where it has to be made. */
async function sharedLeaf({ disk, pages, index }: MapJob, leaf: number): Promise<Uint8Array | null> {
  const { head } = disk;
  const map = baseMapOf(head);
  const count = entriesOfLeaf(blocksOf(head), leaf);
  if (!map || !hasBaseBlock(head, leaf * PAGE_ENTRIES + count - 1)) return null;
  if (entriesOfLeaf(Math.ceil(map.sizeBytes / map.blockSize), leaf) !== count) return null;
  const digest = await soundOrNull(() => pages.leafDigest(map, leaf));
  return digest && index.lookup(digest)?.kind === 'page' ? digest : null;
}

/** `lookAtBase`: whether what stands on the base may have been lost. */
type NewLeaf = { leaf: number; parts: readonly WindowView[]; lookAtBase: boolean };

async function newLeaf(
  { disk, pages, index, firsts }: MapJob,
  { leaf, parts, lookAtBase }: NewLeaf,
  account: BlockAccount,
): Promise<Uint8Array> {
  const { head } = disk;
  const map = baseMapOf(head);
  const first = leaf * PAGE_ENTRIES;
  const count = entriesOfLeaf(blocksOf(head), leaf);
  const old = map && hasBaseBlock(head, first) ? await soundLeaf(pages, map, leaf) : null;
  const page = Buffer.alloc(count * DIGEST_BYTES);
  for (let at = 0; at < count; at += 1) {
    const block = first + at;
    const base = old && hasBaseBlock(head, block) ? entryOf(old, at) : null;
    const entry = parts[windowOfLeaf(head, at)]!.entryOf(block);
    const length = blockLengthOf(block, head.plan.sizeBytes, head.blockSize);
    if (entry === null) checkBase(head, block, base, !lookAtBase || (base !== null && resolves(index, base, length)));
    const digest = entry === null ? base! : entry.kind === 'data' ? entry.digest : ZERO_ENTRY;
    page.set(digest, at * DIGEST_BYTES);
    const isUnchanged = entry === null || (base !== null && Buffer.compare(base, digest) === 0);
    if (isUnchanged) account.unchanged(entry?.kind ?? null, length);
    else if (entry.kind === 'data') account.data(isFirst(index, firsts, head, { block, digest, length }), length);
    else account.empty(entry.kind, length);
  }
  return page;
}

function checkBase(head: HeadDisk, block: number, base: Uint8Array | null, isThere: boolean): void {
  if (base !== null && isThere) return;
  if (hasBaseBlock(head, block)) throw baseLost(head, block);
  throw notConserved(head, `block ${block} is called unchanged, without a base`);
}

const windowOfLeaf = ({ blockSize }: HeadDisk, at: number): number => Math.floor((at * blockSize) / WINDOW_BYTES);

type NewBlock = { block: number; digest: Uint8Array; length: number };

/** Whether this is the first reference to a record that this restore point wrote. DAMAGED_BLOCK when there is none. */
function isFirst(index: DigestIndex, firsts: FirstReferences, head: HeadDisk, of: NewBlock): boolean {
  const found = index.lookup(of.digest);
  if (found?.place.rawLength === of.length) return firsts.note(of.digest, found);
  const digest = Buffer.from(of.digest).toString('hex');
  throw new TidemarkError(
    'DAMAGED_BLOCK',
    `block ${of.block} of disk ${head.plan.diskKey} is not in the repository: ${digest}`,
    { diskKey: head.plan.diskKey, block: of.block, digest },
  );
}

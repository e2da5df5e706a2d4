/** Blocks that changed in the last restore points of a lineage: where tracking has work to do, it may fail. */
import type { DiskKey, LineageId, RestorePointId } from '../../../schema/domain/ids.ts';
import type { Manifest } from '../../../schema/domain/restore-point.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { entryOf } from '../../../schema/repository/map-page.ts';
import { DIGEST_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { baseMapOf, hasBaseBlock } from './base-view.ts';
import { type DiskMap, type PageReader, soundOrNull } from './page-reader.ts';
import type { Points } from './points.ts';

/** How far back a block counts as changed not long ago, in restore points. */
const RESTORE_POINTS_BACK = 3;
/** An audit draws no more of them. */
const MOST_BLOCKS = 16_384;

/** Sealed restore points of a lineage, newest first. */
export function sealedOfLineage({ sealed }: Pick<Points, 'sealed'>, lineage: LineageId): Manifest[] {
  return newestFirst([...sealed.values()].map(({ manifest }) => manifest).filter((one) => one.lineage === lineage));
}

/** As they were sealed. */
export const newestFirst = (manifests: readonly Manifest[]): Manifest[] =>
  manifests.toSorted((a, b) => (a.sealedAt < b.sealedAt ? 1 : -1));

/**
 * Blocks that base and disk have in common and in which the base differs from the restore point up to three before it,
 * each once; of very many, those from a place on that `turn` decides. None where there is nothing sound to compare.
 */
export async function recentlyChanged(
  { pages, points }: { pages: PageReader; points: Points },
  of: { disk: HeadDisk; lineage: LineageId; turn: number },
): Promise<number[]> {
  const { disk, turn } = of;
  const base = baseMapOf(disk);
  const before = base && mapBefore(sealedOfLineage(points, of.lineage), disk.base!.restorePointId, disk);
  const blocks: number[] = [];
  if (!base || !before) return blocks;
  for await (const block of differingBlocks(pages, [base, before], turn)) {
    if (hasBaseBlock(disk, block)) blocks.push(block);
    if (blocks.length === MOST_BLOCKS) break;
  }
  return blocks;
}

function mapBefore(newestFirst: readonly Manifest[], baseId: RestorePointId, disk: HeadDisk): DiskMap | null {
  const at = newestFirst.findIndex(({ restorePointId }) => restorePointId === baseId);
  const older = newestFirst.slice(at + 1, at + 1 + RESTORE_POINTS_BACK).toReversed();
  for (const manifest of at < 0 ? [] : older) {
    const map = mapIn(manifest, disk.plan.diskKey, disk.blockSize);
    if (map) return map;
  }
  return null;
}

const mapIn = ({ disks }: Manifest, diskKey: DiskKey, blockSize: number): DiskMap | null =>
  disks.find((disk) => disk.diskKey === diskKey && disk.blockSize === blockSize) ?? null;

type Pair = readonly [Uint8Array, Uint8Array];

/** Page by page: what two equal pages stand for is not looked at. Pages that are damaged count as equal. */
async function* differingBlocks(
  pages: PageReader,
  maps: readonly [DiskMap, DiskMap],
  turn: number,
): AsyncGenerator<number> {
  const height = Math.min(...maps.map((map) => map.height));
  if (height === 0) return;
  const tops = await Promise.all(maps.map((map) => topOfHeight(pages, map, height)));
  if (tops[0] && tops[1]) yield* differing(pages, [tops[0], tops[1]], { level: height - 1, first: 0, turn });
}

/** The page at the beginning of the disk below which a tree of that height hangs. */
async function topOfHeight(pages: PageReader, map: DiskMap, height: number): Promise<Uint8Array | null> {
  let digest: Uint8Array | null = Buffer.from(map.root, 'hex');
  for (let level = map.height; digest && level > height; level -= 1) {
    const page: Uint8Array | null = await soundPage(pages, digest);
    digest = page && entryOf(page, 0);
  }
  return digest;
}

const soundPage = (pages: PageReader, digest: Uint8Array): Promise<Uint8Array | null> =>
  soundOrNull(() => pages.page(digest));

/** `level`: 0 of a leaf. `first`: the first block below these pages. */
async function* differing(
  pages: PageReader,
  [a, b]: Pair,
  { level, first, turn }: { level: number; first: number; turn: number },
): AsyncGenerator<number> {
  if (isSame(a, b)) return;
  const [left, right] = await Promise.all([soundPage(pages, a), soundPage(pages, b)]);
  if (!left || !right) return;
  const count = Math.min(left.byteLength, right.byteLength) / DIGEST_BYTES;
  const span = PAGE_ENTRIES ** level;
  for (let step = 0; step < count; step += 1) {
    const at = (step + turn) % count;
    const pair: Pair = [entryOf(left, at), entryOf(right, at)];
    if (isSame(...pair)) continue;
    if (level === 0) yield first + at;
    else yield* differing(pages, pair, { level: level - 1, first: first + at * span, turn });
  }
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0;

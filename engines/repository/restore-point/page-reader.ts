/** Reads map pages through a bounded cache (8 MiB), each checked against its digest; damaged ones leave the index. */
import { errorCodeOf, errorTable, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { blockCountOf } from '../../../schema/domain/extents.ts';
import type { RecordSource } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { entryOf, isPageLength } from '../../../schema/repository/map-page.ts';
import type { IndexEntry } from '../index/record-index.ts';
import type { Damages } from './damages.ts';
import type { DigestIndex } from './digest-index.ts';

const CACHED_PAGES = 1024;

/** `root`: hex. */
export type DiskMap = { root: string; height: number; sizeBytes: number; blockSize: number };

export type PageReader = {
  /** DAMAGED_BLOCK when it is not to be had. */
  page(digest: Uint8Array): Promise<Uint8Array>;
  /** Digest of leaf page `leaf`. DAMAGED_BLOCK or REPOSITORY_CORRUPT when the way to it is damaged. */
  leafDigest(map: DiskMap, leaf: number): Promise<Uint8Array>;
  /** Leaf page `leaf` of the map: 32 bytes per block. */
  leaf(map: DiskMap, leaf: number): Promise<Uint8Array>;
};

export type PageShelf = { index: DigestIndex; source: RecordSource; damages: Pick<Damages, 'met'> };

export function createPageReader(shelf: PageShelf): PageReader {
  const cache = new Map<string, Promise<Uint8Array>>();

  function page(digest: Uint8Array): Promise<Uint8Array> {
    const key = Buffer.from(digest).toString('hex');
    const cached = cache.get(key) ?? readPage(shelf, digest);
    cache.delete(key);
    cache.set(key, cached);
    if (cache.size > CACHED_PAGES) cache.delete(cache.keys().next().value!);
    cached.catch(() => cache.delete(key));
    return cached;
  }

  async function leafDigest(map: DiskMap, leaf: number): Promise<Uint8Array> {
    let digest: Uint8Array = Buffer.from(map.root, 'hex');
    for (let level = map.height - 1; level > 0; level -= 1) {
      const at = Math.floor(leaf / PAGE_ENTRIES ** (level - 1)) % PAGE_ENTRIES;
      digest = entryOf(await page(digest), at);
      if (digest.byteLength !== 32) throw badMap(map, `no entry ${at} at level ${level}`);
    }
    return digest;
  }

  return {
    page,
    leafDigest,
    leaf: async (map, leaf) => {
      const bytes = await page(await leafDigest(map, leaf));
      const expected = Math.min(PAGE_ENTRIES, blockCountOf(map.sizeBytes, map.blockSize) - leaf * PAGE_ENTRIES);
      if (bytes.byteLength !== expected * 32) throw badMap(map, `leaf ${leaf} has ${bytes.byteLength} bytes`);
      return bytes;
    },
  };
}

/** The leaf, or null when the way to it is damaged. */
export const soundLeaf = (pages: PageReader, map: DiskMap, leaf: number): Promise<Uint8Array | null> =>
  soundOrNull(() => pages.leaf(map, leaf));

/** What `read` gives, or null when it is damaged. */
export async function soundOrNull<T>(read: () => Promise<T>): Promise<T | null> {
  try {
    return await read();
  } catch (error) {
    const code = errorCodeOf(error);
    if (code !== undefined && errorTable[code].disposition === 'damage') return null;
    throw error;
  }
}

const badMap = (map: DiskMap, why: string): TidemarkError =>
  new TidemarkError('REPOSITORY_CORRUPT', `block map ${map.root}: ${why}`, { root: map.root });

/** Of several copies any sound one serves. DAMAGED_BLOCK, or TAMPERED, with the digest in its details: there is none. */
export async function readPage({ index, source, damages }: PageShelf, digest: Uint8Array): Promise<Uint8Array> {
  const key = Buffer.from(digest).toString('hex');
  let found = pageEntry(index, digest);
  if (!found) throw new TidemarkError('DAMAGED_BLOCK', `map page ${key} is missing`, { digest: key });
  for (;;) {
    try {
      return checkedPage(await source.read(found.place, digest), digest, key);
    } catch (error) {
      if (!damages.met({ digest, kind: 'page', place: found.place }, error)) throw error;
      const other = pageEntry(index, digest);
      if (!other || isSame(other, found)) throw unreadable(key, error);
      found = other;
    }
  }
}

const unreadable = (key: string, cause: unknown): TidemarkError =>
  new TidemarkError(
    errorCodeOf(cause) ?? 'BUG',
    `map page ${key} cannot be read: ${messageOf(cause)}`,
    { ...(cause as TidemarkError).details, digest: key },
    cause,
  );

/** A block with the bytes of a page may be compressed: no page. */
function pageEntry(index: DigestIndex, digest: Uint8Array): IndexEntry | null {
  const found = index.lookup(digest);
  return found?.kind === 'page' ? found : null;
}

const isSame = ({ place: a }: IndexEntry, { place: b }: IndexEntry): boolean =>
  a.pack === b.pack && a.offset === b.offset;

function checkedPage(bytes: Uint8Array, digest: Uint8Array, key: string): Uint8Array {
  if (isPageLength(bytes.byteLength) && digestOf(bytes).compare(digest) === 0) return bytes;
  const why = 'it is not what its digest says';
  throw new TidemarkError('DAMAGED_BLOCK', `map page ${key}: ${why}`, { digest: key, why });
}

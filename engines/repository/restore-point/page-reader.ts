/** Reads map pages through a bounded cache (8 MiB), each checked against its digest; damaged ones leave the index. */
import { errorCodeOf, TidemarkError } from '../../../schema/domain/errors.ts';
import { blockCountOf } from '../../../schema/domain/extents.ts';
import type { RecordSource } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import { PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { entryOf, isPageLength } from '../../../schema/repository/map-page.ts';
import type { DigestIndex } from './digest-index.ts';

const CACHED_PAGES = 1024;

/** `root`: hex. */
export type DiskMap = { root: string; height: number; sizeBytes: number; blockSize: number };

export type PageReader = {
  /** Digest of leaf page `leaf`. DAMAGED_BLOCK or REPOSITORY_CORRUPT when the way to it is damaged. */
  leafDigest(map: DiskMap, leaf: number): Promise<Uint8Array>;
  /** Leaf page `leaf` of the map: 32 bytes per block. */
  leaf(map: DiskMap, leaf: number): Promise<Uint8Array>;
};

export function createPageReader(index: DigestIndex, source: RecordSource): PageReader {
  const cache = new Map<string, Promise<Uint8Array>>();

  function page(digest: Uint8Array): Promise<Uint8Array> {
    const key = Buffer.from(digest).toString('hex');
    const cached = cache.get(key) ?? readPage(index, source, digest, key);
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
export async function soundLeaf(pages: PageReader, map: DiskMap, leaf: number): Promise<Uint8Array | null> {
  try {
    return await pages.leaf(map, leaf);
  } catch (error) {
    const code = errorCodeOf(error);
    if (code === 'DAMAGED_BLOCK' || code === 'REPOSITORY_CORRUPT') return null;
    throw error;
  }
}

const badMap = (map: DiskMap, why: string): TidemarkError =>
  new TidemarkError('REPOSITORY_CORRUPT', `block map ${map.root}: ${why}`, { root: map.root });

/** A copy that is damaged is forgotten, and the next one tried. DAMAGED_BLOCK. `key`: the digest in hex. */
export async function readPage(
  index: DigestIndex,
  source: RecordSource,
  digest: Uint8Array,
  key: string,
): Promise<Uint8Array> {
  const found = index.lookup(digest);
  // A block with the bytes of a page is sound, but may be compressed: no page.
  if (found?.kind !== 'page') throw new TidemarkError('DAMAGED_BLOCK', `map page ${key} is missing`, { digest: key });
  try {
    return checkedPage(await source.read(found.place, digest), digest, key);
  } catch (error) {
    if (errorCodeOf(error) !== 'DAMAGED_BLOCK') throw error;
    index.forget(found.place);
    if (index.lookup(digest)) return readPage(index, source, digest, key);
    throw error;
  }
}

function checkedPage(bytes: Uint8Array, digest: Uint8Array, key: string): Uint8Array {
  if (isPageLength(bytes.byteLength) && digestOf(bytes).compare(digest) === 0) return bytes;
  throw new TidemarkError('DAMAGED_BLOCK', `map page ${key} is not what its digest says`, { digest: key });
}

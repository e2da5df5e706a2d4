import { beforeEach, describe, expect, test } from 'vitest';
import { restorePointId } from '../../../schema/domain/ids.ts';
import type { RecordPlace, RecordSource } from '../../../schema/domain/seams.ts';
import { digestOf } from '../../../schema/repository/digest.ts';
import type { HeadDisk } from '../../../schema/repository/documents.ts';
import { heightOf } from '../../../schema/repository/map-page.ts';
import { plainVault } from '../../../schema/repository/vault.ts';
import { MIB, planOf } from '../../../tests/fixtures/repository/test-repository.ts';
import { seeded } from '../../../tests/fixtures/mover/disks.ts';
import { createRecordIndex, type RecordIndex } from '../index/record-index.ts';
import { alsoReadOf, type SoundMaps } from './also-read.ts';
import type { Damages } from './damages.ts';
import { createDigestIndex, type DigestIndex } from './digest-index.ts';
import { createMapWriter } from './map-writer.ts';
import { createPageReader, type DiskMap, type PageReader } from './page-reader.ts';

const writer = restorePointId('00'.repeat(16));
const entryOf = (block: number): Buffer => digestOf(Buffer.from(`block ${block}`));

/** As the repository's own, but written down nowhere. */
const forgetting = (index: RecordIndex): Pick<Damages, 'met'> => ({
  met: ({ place }) => {
    index.forget(place);
    return true;
  },
});
const byDigest = (index: RecordIndex): DigestIndex => createDigestIndex(index, plainVault);

/** Pages in memory, found through an index. */
function createShelf() {
  const index = createRecordIndex();
  const pages = new Map<number, Buffer>();
  const put = (page: Uint8Array): Uint8Array => {
    const id = digestOf(page);
    const place: RecordPlace = {
      pack: 'p',
      offset: pages.size,
      storedLength: page.length,
      rawLength: page.length,
      codec: 'none',
    };
    if (index.lookup(id)) return id;
    pages.set(place.offset, Buffer.from(page));
    index.apply([{ id, kind: 'page', place, writer }]);
    return id;
  };
  const source: RecordSource = { read: async (place) => pages.get(place.offset)!, close: async () => undefined };
  return {
    index,
    put,
    pages,
    reader: createPageReader({ index: byDigest(index), source, damages: forgetting(index) }),
  };
}

function mapOf(put: (page: Uint8Array) => Uint8Array, blocks: number, entry = entryOf): DiskMap {
  const map = createMapWriter(put);
  for (let first = 0; first < blocks; first += 256) {
    const count = Math.min(256, blocks - first);
    map.addLeaf(Buffer.concat(Array.from({ length: count }, (_, at) => entry(first + at))));
  }
  return { ...map.finish(), sizeBytes: blocks * MIB, blockSize: MIB };
}

describe('map', () => {
  test.each([0, 1, 255, 256, 257, 65_536, 65_537, 70_000])('of %d blocks is written and read back', async (blocks) => {
    const { put, reader } = createShelf();
    const map = mapOf(put, blocks);
    expect(map.height).toBe(heightOf(blocks));
    for (let leaf = 0; leaf * 256 < blocks; leaf += blocks > 1000 ? 17 : 1) {
      const page = await reader.leaf(map, leaf);
      expect(Buffer.from(page.subarray(0, 32))).toEqual(entryOf(leaf * 256));
      expect(Buffer.from(page.subarray(-32))).toEqual(entryOf(Math.min(blocks, leaf * 256 + 256) - 1));
    }
  });

  test('equal content gives equal pages; one block more or less changes one page per level', () => {
    const { put, pages } = createShelf();
    const first = mapOf(put, 70_000);
    const before = pages.size;
    expect(mapOf(put, 70_000).root).toBe(first.root);
    expect(pages.size).toBe(before);
    mapOf(put, 70_000, (block) => entryOf(block === 1234 ? -1 : block));
    expect(pages.size).toBe(before + 3);
  });

  test('a page that is not what its digest says is refused, and forgotten so that it is written again', async () => {
    const { put, reader, index, pages } = createShelf();
    const map = mapOf(put, 300);
    pages.set(0, Buffer.alloc(8192, 7));
    await expect(reader.leaf(map, 0)).rejects.toMatchObject({ code: 'DAMAGED_BLOCK' });
    expect(index.lookup(await reader.leafDigest(map, 0))).toBeNull();
    await expect(reader.leaf(map, 0)).rejects.toThrow(/missing/);
    await expect(reader.leaf(map, 1)).resolves.toHaveLength(44 * 32);
    mapOf(put, 300);
    await expect(reader.leaf(map, 0)).resolves.toHaveLength(8192);
  });

  test('a map of another shape than its disk is refused', async () => {
    const { put, reader } = createShelf();
    const map = mapOf(put, 300);
    await expect(reader.leaf({ ...map, sizeBytes: 299 * MIB }, 1)).rejects.toMatchObject({
      code: 'REPOSITORY_CORRUPT',
    });
    await expect(reader.leaf(map, 2)).rejects.toMatchObject({ code: 'REPOSITORY_CORRUPT' });
    await expect(reader.leaf({ ...map, height: 3 }, 0)).rejects.toMatchObject({ code: 'DAMAGED_BLOCK' });
  });
});

describe('what an increment also reads', () => {
  const headOf = (map: DiskMap, sizeBytes: number, mode: 'cbt' | 'comparison' = 'cbt'): HeadDisk => ({
    number: 0,
    binding: 1,
    fence: 1,
    assignment: 1,
    checkpoint: 'c',
    plan: planOf(sizeBytes, { mode, baseRestorePointId: writer }),
    blockSize: MIB,
    base: { restorePointId: writer, ...map },
    filterDigest: null,
  });
  const zeroMap = (put: (page: Uint8Array) => Uint8Array, sizeBytes: number): DiskMap => ({
    ...mapOf(put, Math.ceil(sizeBytes / MIB), () => Buffer.alloc(32)),
    sizeBytes,
  });
  let soundMaps: SoundMaps;
  beforeEach(() => {
    soundMaps = new Map();
  });
  const ask = (pages: PageReader, index: RecordIndex, map: DiskMap, sizeBytes: number, mode?: 'comparison') =>
    alsoReadOf(
      { pages, index: byDigest(index), soundMaps, damages: { count: () => index.forgottenCount() } },
      headOf(map, sizeBytes, mode),
    );

  test.each([
    ['the same size', 5 * MIB + 7, 5 * MIB + 7, []],
    ['growth from a block border', 5 * MIB, 7 * MIB + 1, [{ offset: 5 * MIB, length: 2 * MIB + 1 }]],
    ['growth within the last block', 5 * MIB + 7, 5 * MIB + 9, [{ offset: 5 * MIB, length: 9 }]],
    ['growth out of the last block', 5 * MIB + 7, 9 * MIB, [{ offset: 5 * MIB, length: 4 * MIB }]],
    ['growth from nothing', 0, 3 * MIB, [{ offset: 0, length: 3 * MIB }]],
    ['shrinking to a block border', 5 * MIB + 7, 3 * MIB, []],
    ['shrinking into a block', 5 * MIB, 3 * MIB + 5, [{ offset: 3 * MIB, length: 5 }]],
    ['shrinking to nothing', 5 * MIB, 0, []],
  ])('%s', async (_, before, now, expected) => {
    const { put, reader, index } = createShelf();
    expect(await ask(reader, index, zeroMap(put, before), now)).toEqual(expected);
  });

  test('blocks whose record is lost, whole leaves whose page is lost; nothing for other modes', async () => {
    const { put, reader, index, pages } = createShelf();
    const map = mapOf(put, 600);
    const place = { pack: 'blocks', storedLength: 1, rawLength: MIB, codec: 'zstd' as const };
    for (let block = 0; block < 600; block += 1)
      index.apply([{ id: entryOf(block), kind: 'block', place: { ...place, offset: block }, writer }]);
    expect(await ask(reader, index, map, 600 * MIB)).toEqual([]);
    for (const block of [3, 4, 10]) index.forget({ pack: 'blocks', offset: block });
    expect(await ask(reader, index, map, 600 * MIB)).toEqual([
      { offset: 3 * MIB, length: 2 * MIB },
      { offset: 10 * MIB, length: MIB },
    ]);
    index.forget(index.lookup(await reader.leafDigest(map, 1))!.place);
    const fresh = createPageReader({
      index: byDigest(index),
      source: { read: async ({ offset }) => pages.get(offset)!, close: async () => undefined },
      damages: forgetting(index),
    });
    expect((await ask(fresh, index, map, 600 * MIB)).at(-1)).toEqual({ offset: 256 * MIB, length: 256 * MIB });
    expect(await ask(fresh, index, map, 600 * MIB, 'comparison')).toEqual([]);
  });

  test('very many become few, and cover them all', async () => {
    const { next } = seeded();
    const { put, reader, index } = createShelf();
    const map = mapOf(put, 20_000);
    const lost = new Set<number>();
    const place = { pack: 'p', offset: 0, storedLength: 1, rawLength: MIB, codec: 'zstd' as const };
    for (let block = 0; block < 20_000; block += 1) {
      if (next(3) === 0) lost.add(block);
      else index.apply([{ id: entryOf(block), kind: 'block', place, writer }]);
    }
    const extents = await ask(reader, index, map, 20_000 * MIB);
    expect(extents.length).toBeLessThanOrEqual(256);
    for (const { offset, length } of extents) expect([offset % MIB, length % MIB]).toEqual([0, 0]);
    for (const block of lost)
      expect(extents.some(({ offset, length }) => offset <= block * MIB && (block + 1) * MIB <= offset + length)).toBe(
        true,
      );
  });
});

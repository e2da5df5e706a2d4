import { createHash } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { releaseOwnMemory } from '../../../schema/domain/memory.ts';
import { PageSet } from './page-set.ts';
import { newSeenPages, walkMap } from './walk-map.ts';

const digestOf = (name: string | Uint8Array): Buffer => createHash('sha256').update(name).digest();

/** Pages by digest, and how often each was read. */
function createPages() {
  const pages = new Map<string, Buffer>();
  const reads: string[] = [];
  return {
    reads,
    put: (...entries: Uint8Array[]): Buffer => {
      const page = Buffer.concat(entries);
      const digest = digestOf(page);
      pages.set(digest.toString('hex'), page);
      return digest;
    },
    read: async (digest: Uint8Array): Promise<Uint8Array> => {
      const key = Buffer.from(digest).toString('hex');
      reads.push(key);
      return pages.get(key)!;
    },
  };
}
type Pages = ReturnType<typeof createPages>;

async function met(pages: Pages, maps: [root: Buffer, height: number][]): Promise<Set<string>> {
  const found = new Set<string>();
  const seen = newSeenPages();
  const meet = (digest: Uint8Array): void => void found.add(Buffer.from(digest).toString('hex'));
  for (const [root, height] of maps)
    await walkMap({ root: root.toString('hex'), height }, { seen, read: pages.read, meet });
  return found;
}
const hexes = (...digests: Buffer[]): Set<string> => new Set(digests.map((digest) => digest.toString('hex')));
const block = (number: number): Buffer => digestOf(`block ${number}`);
const zero = Buffer.alloc(32);

describe('walking maps', () => {
  test('meets every page and block but zeros, and reads each page once', async () => {
    const pages = createPages();
    const [a, b, c] = [pages.put(block(1), zero), pages.put(block(2), block(1)), pages.put(zero)];
    const [one, other] = [pages.put(a, b), pages.put(a, c)];
    const all = hexes(one, other, a, b, c, block(1), block(2));
    expect(
      await met(pages, [
        [one, 2],
        [other, 2],
      ]),
    ).toEqual(all);
    expect(pages.reads.sort()).toEqual([...hexes(one, other, a, b, c)].sort());
    expect(await met(pages, [[zero, 0]])).toEqual(new Set());
  });

  test('of thousands of pages, few at a time', async () => {
    const pages = createPages();
    const leaves = Array.from({ length: 3000 }, (_, leaf) => pages.put(block(leaf)));
    const inner = Array.from({ length: 12 }, (_, at) => pages.put(...leaves.slice(at * 256, (at + 1) * 256)));
    const root = pages.put(...inner);
    expect((await met(pages, [[root, 3]])).size).toBe(3000 * 2 + 12 + 1);
    expect(pages.reads).toHaveLength(3000 + 12 + 1);
  });

  test('pages may be given back as soon as they are done with', async () => {
    const pages = createPages();
    const leaves = Array.from({ length: 600 }, (_, leaf) => pages.put(block(2 * leaf), block(2 * leaf + 1)));
    const inner = [
      pages.put(...leaves.slice(0, 256)),
      pages.put(...leaves.slice(256, 512)),
      pages.put(...leaves.slice(512)),
    ];
    const root = pages.put(...inner);
    const whole = await met(pages, [[root, 3]]);
    const given: Uint8Array[] = [];
    const done = (page: Uint8Array): void => {
      given.push(page);
      releaseOwnMemory(page);
    };
    let readCount = 0;
    const read = async (digest: Uint8Array): Promise<Uint8Array> => {
      readCount += 1;
      expect(readCount - given.length).toBeLessThanOrEqual(16);
      return new Uint8Array(await pages.read(digest));
    };
    const found = new Set<string>();
    const meet = (digest: Uint8Array): void => void found.add(Buffer.from(digest).toString('hex'));
    await walkMap({ root: root.toString('hex'), height: 3 }, { seen: newSeenPages(), read, meet, done });
    expect(found).toEqual(whole);
    expect(given).toHaveLength(600 + 3 + 1);
    expect(given.every((page) => page.byteLength === 0)).toBe(true);
  });

  test('a page that is a leaf of one map and stands higher in another is gone into in both', async () => {
    const pages = createPages();
    // Somebody's disk has a block with the bytes of a page.
    const leaf = pages.put(block(7));
    const page = pages.put(leaf);
    const maps: [Buffer, number][] = [
      [page, 1],
      [page, 2],
    ];
    for (const order of [maps, maps.toReversed()]) expect(await met(pages, order)).toEqual(hexes(page, leaf, block(7)));
  });
});

test('a set of pages tells each once, however many', () => {
  const set = new PageSet();
  const digests = Array.from({ length: 20_000 }, (_, number) => digestOf(String(number)));
  expect(digests.every((digest) => set.add(digest))).toBe(true);
  expect(digests.some((digest) => set.add(digest))).toBe(false);
  expect([set.add(zero), set.add(zero)]).toEqual([true, false]);
});

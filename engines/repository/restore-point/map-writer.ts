/** Builds a block map leaf by leaf, holding one page per level. */
import { PAGE_BYTES, PAGE_ENTRIES } from '../../../schema/repository/limits.ts';
import { EMPTY_ROOT } from '../../../schema/repository/map-page.ts';

type Level = { page: Buffer; filled: number; total: number };

export type MapWriter = {
  addLeaf(page: Uint8Array): void;
  /** A leaf that exists already. */
  addLeafDigest(digest: Uint8Array): void;
  finish(): { root: string; height: number };
};

/** `put` stores a page (unless it is there) and gives its digest; it must not keep the page. */
export function createMapWriter(put: (page: Uint8Array) => Uint8Array): MapWriter {
  const levels: Level[] = [];

  function flush(level: Level): Uint8Array {
    const digest = put(level.page.subarray(0, level.filled * 32));
    level.filled = 0;
    return digest;
  }

  function add(depth: number, digest: Uint8Array): void {
    const level = (levels[depth] ??= { page: Buffer.alloc(PAGE_BYTES), filled: 0, total: 0 });
    if (level.filled === PAGE_ENTRIES) add(depth + 1, flush(level));
    level.page.set(digest, level.filled * 32);
    level.filled += 1;
    level.total += 1;
  }

  return {
    addLeaf: (page) => add(0, put(page)),
    addLeafDigest: (digest) => add(0, digest),
    finish: () => {
      for (let depth = 0; depth < levels.length; depth += 1) {
        const level = levels[depth]!;
        if (level.total === 1) return { root: level.page.toString('hex', 0, 32), height: depth + 1 };
        add(depth + 1, flush(level));
      }
      return { root: EMPTY_ROOT, height: 0 };
    },
  };
}

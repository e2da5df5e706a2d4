/** Goes over the pages of block maps, each once, several reads at a time. */
import { isZero } from '../../../schema/repository/digest.ts';
import { DIGEST_BYTES, MAX_HEIGHT } from '../../../schema/repository/limits.ts';
import { entryOf } from '../../../schema/repository/map-page.ts';
import type { DiskMap } from '../restore-point/page-reader.ts';
import { PageSet } from './page-set.ts';

const PAGES_AT_ONCE = 16;

/**
 * Pages seen so far, by level: one page may stand at two levels, and what it names is pages at one, blocks at the other.
 */
export type SeenPages = PageSet[];
export const newSeenPages = (): SeenPages => Array.from({ length: MAX_HEIGHT }, () => new PageSet());

export type Walk = {
  seen: SeenPages;
  read(digest: Uint8Array): Promise<Uint8Array>;
  /** With a page that was read and is not looked at again. */
  done?(page: Uint8Array): void;
  /** Of every page and block named by a page that was not seen before, root included; the digest is a view. */
  meet(digest: Uint8Array): void;
  /** Between reads; rejects to end the walk. */
  pause?(): Promise<void>;
};

/** `level`: 0 of a leaf. `digest`: a copy, since the page it stood in is given back. */
type Page = { digest: Uint8Array; level: number };

/** What `read` and `pause` reject with. */
export async function walkMap({ root, height }: Pick<DiskMap, 'root' | 'height'>, walk: Walk): Promise<void> {
  const waiting: Page[] = [];
  const enter = (digest: Uint8Array, level: number): void => {
    walk.meet(digest);
    if (walk.seen[level]!.add(digest)) waiting.push({ digest: new Uint8Array(digest), level });
  };
  if (height > 0) enter(Buffer.from(root, 'hex'), height - 1);
  while (waiting.length > 0) {
    await walk.pause?.();
    const group = waiting.splice(-PAGES_AT_ONCE);
    const pages = await Promise.all(group.map(({ digest }) => walk.read(digest)));
    for (const [i, page] of pages.entries()) visit(page, group[i]!.level, walk, enter);
    if (walk.done) for (const page of pages) walk.done(page);
  }
}

function visit(page: Uint8Array, level: number, walk: Walk, enter: (digest: Uint8Array, level: number) => void): void {
  for (let at = 0; at < page.byteLength / DIGEST_BYTES; at += 1) {
    const entry = entryOf(page, at);
    if (level > 0) enter(entry, level - 1);
    else if (!isZero(entry)) walk.meet(entry);
  }
}

/** Grows an index record by record, as sessions would, and counts what it writes. */
import { mkdirSync, writeFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { openIndex } from '../../engines/repository/index/load-index.ts';
import type { PackListing, PackName } from '../../engines/repository/pack/pack-reader.ts';
import { layout } from '../../engines/repository/storage/layout.ts';
import { threadMs } from './thread-time.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openCountedIndex } from '../counted-storage.ts';
import { listingOf, packName, packOf, recordsOfPack } from './generator.ts';

/** Packs between two waits for what goes on behind. */
const PACKS_PER_WAIT = 64;

/** `longestTurnMs`: of the thread's time, that a question would have waited for what goes on behind. */
export type Growth = { seconds: number; writtenBytes: number; longestTurnMs: number };
export type Of = { folder: string; indexFolder: string; uuid: string; packCount: number };

/** The packs are empty files: only their names are looked at. */
export async function growIndex({ folder, indexFolder, uuid, packCount }: Of): Promise<Growth> {
  const bytes = { read: 0, written: 0 };
  const closed: PackName[] = [];
  const index = await openIndex({
    folder: openCountedIndex(indexFolder, bytes),
    shelf: { list: async () => [...closed], read },
    uuid,
    generation: 0,
    seams: testSeams(),
  });
  const startedMs = performance.now();
  let longestTurnMs = 0;
  for (let pack = 0; pack < packCount; pack += 1) {
    index.apply(recordsOfPack(pack));
    closed.push({ contents: 'blocks', packId: packName(pack) });
    makeEmpty(`${folder}/${layout.closedPack('blocks', packName(pack))}`);
    if (pack % PACKS_PER_WAIT === 0) longestTurnMs = Math.max(longestTurnMs, await longestTurnUntil(index.idle()));
  }
  longestTurnMs = Math.max(longestTurnMs, await longestTurnUntil(index.flush().then(() => index.idle())));
  await index.close();
  return { seconds: (performance.now() - startedMs) / 1000, writtenBytes: bytes.written, longestTurnMs };
}

/** As a read of a file, it takes a turn. */
async function read({ packId }: PackName): Promise<PackListing> {
  await nextTurn();
  return listingOf(packOf(packId));
}

async function longestTurnUntil(end: Promise<void>): Promise<number> {
  const over = end.then(() => 'over');
  let longestMs = 0;
  for (let startMs = threadMs(); (await Promise.race([over, nextTurn('turn')])) === 'turn'; startMs = threadMs())
    longestMs = Math.max(longestMs, threadMs() - startMs);
  return longestMs;
}

function makeEmpty(file: string): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, '');
}

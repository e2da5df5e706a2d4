/** `open-process.ts <folder> <index folder> <uuid> <records>`: opens an index, asks it, prints a `Figures` as JSON. */
import { repositoryId } from '../../schema/domain/ids.ts';
import { newRepositoryFile } from '../../schema/repository/documents.ts';
import { loadIndex, type OpenIndex } from '../../engines/repository/index/load-index.ts';
import { openStorage } from '../../engines/repository/storage/storage.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { idOf } from './generator.ts';
import { threadMs } from './thread-time.ts';

const QUESTIONS = 1024;
const ROUNDS = 41;

/** Times of 1024 questions: of the thread, the mean of the rounds. */
export type Figures = { openMs: number; records: number; missesMs: number; hitsMs: number; scanSeconds: number };

const [folder = '', indexFolder = '', uuid = '', records = '0'] = process.argv.slice(2);

/** Over all rounds: the system counts a thread's time in steps of some milliseconds. */
function meanMs(index: OpenIndex, recordOf: (at: number) => number, isHeld: boolean): number {
  const ids = Array.from({ length: ROUNDS * QUESTIONS }, (_, at) => idOf(recordOf(at)));
  const startedMs = threadMs();
  for (const id of ids) if ((index.lookup(id) !== null) !== isHeld) throw new Error('a wrong answer');
  return (threadMs() - startedMs) / ROUNDS;
}

async function scan(index: OpenIndex): Promise<number> {
  const startedMs = performance.now();
  let count = 0;
  for await (const batch of index.entries()) count += batch.count;
  if (count !== Number(records)) throw new Error(`${count} entries`);
  return (performance.now() - startedMs) / 1000;
}

const startedMs = performance.now();
const file = newRepositoryFile(repositoryId('bench'), uuid, '');
const index = await loadIndex(
  { storage: openStorage({ kind: 'folder', folder }), indexFolder, file, seams: testSeams() },
  [],
);
const openMs = performance.now() - startedMs;
const missesMs = meanMs(index, (at) => 2 ** 30 + at, false);
const hitsMs = meanMs(index, (at) => (at * 7_919_111) % Number(records), true);
const figures: Figures = { openMs, records: index.recordCount(), missesMs, hitsMs, scanSeconds: await scan(index) };
await index.close();
console.log(JSON.stringify(figures));

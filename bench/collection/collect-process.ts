/**
 * `collect-process.ts <folder> <index folder> <million blocks>`: opens a repository that was generated, prints {"openMs"};
 * at the first byte of its input removes the first restore point of every VM and collects, and prints `Figures` as JSON;
 * at the next it collects, lets the grace go by, collects once more, and prints that last `Collection`.
 */
import { once } from 'node:events';
import { listTrash } from '../../engines/repository/maintenance/trash-list.ts';
import { openRepository } from '../../engines/repository/open-repository.ts';
import type { CollectionReport } from '../../schema/domain/maintenance.ts';
import { FOOTER_ENTRY_BYTES, RECORD_HEADER_BYTES } from '../../schema/repository/limits.ts';
import { DAY_MS, HOUR_MS } from '../../tests/fixtures/repository/maintained.ts';
import { MAIN } from '../../tests/fixtures/repository/test-repository.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { systemClock } from '../../workers/runtime/seams.ts';
import { openCountedIndex, openCountedStorage, passedSince, writtenOf } from '../counted-storage.ts';
import { packOf } from '../index/generator.ts';
import * as model from './model.ts';

/** `markedMs`: until the living are known, from the roots and by pack. Bytes; `read...` of the repository until then and since. */
export type Collection = {
  report: CollectionReport;
  totalMs: number;
  markedMs: number;
  readMarking: number;
  readRewriting: number;
  written: number;
  readIndex: number;
};
/** `removalMs`: of each; `syncMs`: of a small new file and its folder, beside each. `living`: blocks. `rewrittenLiving`: bytes of living records in packs that were rewritten, as the model says. */
export type Figures = {
  removalMs: number[];
  syncMs: number[];
  collection: Collection;
  living: number;
  rewrittenLiving: number;
};

const RECORD_BYTES = RECORD_HEADER_BYTES + FOOTER_ENTRY_BYTES + model.PAYLOAD_BYTES;
const [folder = '', indexFolder = '', million = '1'] = process.argv.slice(2);
const shape = model.shapeOf(Number(million) * 1e6);
const counted = openCountedStorage(folder);
const { storage } = counted;
const index = { read: 0, written: 0 };
let aheadMs = 0;
const clock = { ...systemClock, now: () => Date.now() + aheadMs };
const tell = (what: unknown): boolean => process.stdout.write(`${JSON.stringify(what)}\n`);
const toldToGoOn = async (): Promise<void> => void (await once(process.stdin, 'data'));

const openedMs = performance.now();
const repository = await openRepository({
  storage,
  repositoryId: MAIN,
  secret: null,
  indexFolder: openCountedIndex(indexFolder, index),
  seams: { ...testSeams(), clock },
  serverTime: async () => clock.now(),
});

async function removeFirsts(): Promise<Pick<Figures, 'removalMs' | 'syncMs'>> {
  const [removalMs, syncMs]: [number[], number[]] = [[], []];
  for (let vm = 0; vm < model.VMS; vm += 1) {
    removalMs.push(await timed(() => repository.removeRestorePoint(model.pointIdOf(vm, 0))));
    syncMs.push(await timed(() => storage.staging.replace('bench', String(vm))));
  }
  await storage.staging.remove('bench');
  return { removalMs, syncMs };
}

async function timed(work: () => Promise<unknown>): Promise<number> {
  const startedMs = performance.now();
  await work();
  return performance.now() - startedMs;
}

async function collect(): Promise<Collection> {
  const [before, readBefore, startedMs] = [counted.passed(), index.read, performance.now()];
  let [marked, markedMs] = [before, 0];
  const report = await repository.collect({
    signal: new AbortController().signal,
    onProgress: ({ step }) => {
      if (step !== 'rewriting' || markedMs > 0) return;
      [marked, markedMs] = [counted.passed(), performance.now() - startedMs];
    },
  });
  const after = counted.passed();
  return {
    report,
    totalMs: performance.now() - startedMs,
    markedMs,
    readMarking: passedSince(before, marked).read,
    readRewriting: passedSince(marked, after).read,
    written: writtenOf(passedSince(before, after)),
    readIndex: index.read - readBefore,
  };
}

const dead = model.deadPerPack(shape);
const living = [...dead.values()].reduce((blocks, count) => blocks - count, model.blocksOf(shape));

async function livingOfTrashedPacks(): Promise<number> {
  let records = 0;
  for (const { packId, contents } of (await listTrash({ storage })).packs)
    if (contents === 'blocks') records += model.PACK_RECORDS - (dead.get(packOf(packId)) ?? 0);
  return records * RECORD_BYTES;
}

// What opening left behind is not of the collection.
globalThis.gc?.();
tell({ openMs: performance.now() - openedMs });
await toldToGoOn();
const removals = await removeFirsts();
const collection = await collect();
tell({ ...removals, collection, living, rewrittenLiving: await livingOfTrashedPacks() } satisfies Figures);
await toldToGoOn();
// From this one on the grace is counted.
await collect();
aheadMs = DAY_MS + HOUR_MS;
tell(await collect());
await repository.close();
process.exit(0);

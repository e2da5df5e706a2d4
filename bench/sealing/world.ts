/** A repository whose own bytes, those of its lane and those of its index are counted apart. */
import { execFileSync } from 'node:child_process';
import path from 'node:path';
import { openRepository } from '../../engines/repository/open-repository.ts';
import { openRecordSink } from '../../engines/repository/pack/record-sink.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { lineageId, restorePointId, type RestorePointId } from '../../schema/domain/ids.ts';
import type { RecordSink } from '../../schema/domain/seams.ts';
import { plainVault } from '../../schema/repository/vault.ts';
import { MAIN, MIB } from '../../tests/fixtures/repository/test-repository.ts';
import { testSeams } from '../../tests/fixtures/seams.ts';
import { openCountedIndex, openCountedStorage, writtenOf, type IndexBytes, type Passed } from '../counted-storage.ts';
import { idOf } from '../index/generator.ts';
import { writeManifestFile } from '../manifests.ts';
import { standIn } from './content.ts';
import { backUp, type Sealed } from './session.ts';

/** Of 6 GiB. */
export const SIZE_BYTES = 6 * 1024 * MIB;
const VMS = 100;
/** Of sessions; below are the restore points that were there before. */
const FIRST_SESSION = 1_000_000;

export type World = {
  readonly repository: Repository;
  readonly sink: RecordSink;
  readonly blockSize: number;
  readonly index: IndexBytes;
  /** Of the repository without its blocks. */
  passed(): Passed;
  /** Bytes of packs of blocks. */
  blocks(): number;
  nextNumber(): number;
  last: RestorePointId;
  close(): Promise<void>;
};

/** With a full of a disk of which each block is another, and `kept` restore points of a tiny disk of other VMs. */
export async function createWorld(root: string, blockSize: number, kept: number): Promise<World> {
  const [folder, indexFolder] = [path.join(root, 'r'), path.join(root, 'index')];
  const index: IndexBytes = { read: 0, written: 0 };
  const own = openCountedStorage(folder);
  const lane = openCountedStorage(folder);
  const seams = testSeams();
  const open = () =>
    openRepository({
      storage: own.storage,
      repositoryId: MAIN,
      secret: null,
      seams,
      indexFolder: openCountedIndex(indexFolder, index),
    });
  await (await open()).close();
  writeKept(folder, kept);
  // Else the first seal that syncs waits for all of them.
  execFileSync('sync', ['-f', folder]);
  const repository = await open();
  const sink = openRecordSink({ storage: lane.storage, vault: plainVault, seams });
  let number = FIRST_SESSION;
  const nextNumber = (): number => (number += 1);
  const close = async (): Promise<void> => {
    await sink.close();
    await repository.close();
  };
  const blocks = (): number => writtenOf(lane.passed());
  const shelf = { repository, sink, blockSize, index, passed: () => own.passed(), blocks, nextNumber, close };
  const { restorePointId: last } = await backUpFull(shelf);
  return { ...shelf, last };
}

function backUpFull(world: Omit<World, 'last'>): Promise<Sealed> {
  const { blockSize, nextNumber } = world;
  const sent = new Map(Array.from({ length: SIZE_BYTES / blockSize }, (_, block) => [block, standIn(block)] as const));
  return backUp(world, { number: nextNumber(), sizeBytes: SIZE_BYTES, blockSize, base: null, sent });
}

function writeKept(folder: string, count: number): void {
  const disk = { root: idOf(0).toString('hex'), height: 1, sizeBytes: MIB, blockSize: MIB };
  for (let number = 0; number < count; number += 1) {
    const vm = number % VMS;
    writeManifestFile(folder, {
      restorePointId: restorePointId(idOf(2 ** 30 + number).toString('hex', 0, 16)),
      lineage: lineageId(`beef${String(vm).padStart(12, '0')}`),
      vmId: `33333333-0000-4000-8000-${String(vm).padStart(12, '0')}`,
      number,
      disk,
    });
  }
}

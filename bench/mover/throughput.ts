/** Source to target with the tests' repository in memory and packs on disk, in one process. */
import { randomFillSync } from 'node:crypto';
import { mkdir, open, rm } from 'node:fs/promises';
import path from 'node:path';
import { createSourcePool } from '../../engines/mover/source/pool.ts';
import { startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import type { TransferSummary } from '../../schema/domain/restore-point.ts';
import type { CompressionLevel } from '../../schema/domain/states.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { MemoryRepository } from '../../tests/fixtures/mover/memory-repository.ts';
import { createSeams } from '../../workers/runtime/seams.ts';

const MIB = 1024 * 1024;
const fixture = (name: string): URL => new URL(`../../tests/fixtures/mover/${name}.ts`, import.meta.url);

/** Mebibytes in turn: random bytes, zeros, text; no two alike but the zeros. */
export async function writeMixedDisk(file: string, sizeBytes: number): Promise<void> {
  const handle = await open(file, 'w');
  const block = Buffer.alloc(MIB);
  for (let index = 0; index * MIB < sizeBytes; index += 1) {
    if (index % 3 === 0) randomFillSync(block);
    else block.fill(index % 3 === 1 ? 0 : `line ${index} of a text that goes on and on; `);
    await handle.write(block, 0, MIB, index * MIB);
  }
  await handle.close();
}

export async function measureThroughput(
  folder: string,
  file: string,
  of: { sizeBytes: number; laneCount: number; compression: CompressionLevel },
): Promise<TransferSummary> {
  const { sizeBytes, laneCount, compression } = of;
  const packs = path.join(folder, `packs-${laneCount}-${compression}`);
  await mkdir(packs);
  const repository = new MemoryRepository(path.join(packs, 'ledger'));
  const target = await startMoverTarget({
    listen: { unix: path.join(packs, 'sock', 'mover') },
    laneCount,
    laneEntry: fixture('target-lane'),
    laneData: { folder: packs },
    registrar: repository,
    restoreSource: repository.restoreSource(sizeBytes, MIB),
    seams: createSeams('bench-target'),
  });
  const pool = createSourcePool({ laneCount, laneEntry: fixture('source-lane'), seams: createSeams('bench-source') });
  try {
    return await pool.transfer(
      orderOf({ disk: { file }, sizeBytes, blockSize: MIB, compression, endpoint: target.endpoint }),
    );
  } finally {
    await pool.close();
    await target.close();
    await rm(packs, { recursive: true });
  }
}

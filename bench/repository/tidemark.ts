/** A repository, its target and a proxy's restore lanes as the worker processes put them together, in one process. */
import path from 'node:path';
import { createRestorePool } from '../../engines/mover/restore-client/pool.ts';
import { createSourcePool } from '../../engines/mover/source/pool.ts';
import { type MoverTarget, startMoverTarget } from '../../engines/mover/target/mover-target.ts';
import { openRepository } from '../../engines/repository/open-repository.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { createTargets, finishTargets } from '../../engines/restore/targets.ts';
import type { RestorePointId } from '../../schema/domain/ids.ts';
import type { CheckReport } from '../../schema/domain/maintenance.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import type { Secret } from '../../schema/repository/secrets.ts';
import { orderOf } from '../../tests/fixtures/mover/disks.ts';
import { DISK, MAIN, MIB, planOf, runOf, sealOf, specOf } from '../../tests/fixtures/repository/test-repository.ts';
import type { RepositoryLaneData } from '../../workers/lanes/target-lane.ts';
import { packThreadsOf } from '../../workers/runtime/pack-threads.ts';
import { openRepositoryStorage } from '../../workers/runtime/repository-storage.ts';
import { createSeams } from '../../workers/runtime/seams.ts';
import type { Image } from './image.ts';

export const LANES = 2;
export const RESTORED = 'restored.raw';
const workerLane = (name: string): URL => new URL(`../../workers/lanes/${name}.ts`, import.meta.url);
export type Tidemark = {
  /** Where its packs of blocks lie. */
  readonly folder: string;
  check(depth: 'sums' | 'full'): Promise<CheckReport>;
  /** Makes `RESTORED` in the folder, durably. */
  restore(folder: string): Promise<void>;
  close(): Promise<void>;
};

type Parts = { repository: Repository; target: MoverTarget; seams: Seams };

async function open(root: string, secret: Secret | null): Promise<Parts> {
  const seams = createSeams('bench');
  const storage = { kind: 'folder' as const, folder: path.join(root, 'r') };
  let target: MoverTarget | null = null;
  const repository = await openRepository({
    storage: openRepositoryStorage(storage, seams),
    repositoryId: MAIN,
    secret,
    indexFolder: path.join(root, 'index'),
    packWorker: packThreadsOf(storage, LANES),
    closePacks: async () => target?.closePacks(),
    seams,
  });
  target = await startMoverTarget({
    listen: { unix: path.join(root, 's', 'm') },
    laneCount: LANES,
    laneEntry: workerLane('target-lane'),
    laneData: { storage, keys: repository.laneKeys } satisfies RepositoryLaneData,
    registrar: repository.registrar,
    restoreSource: repository.restoreSource,
    seams,
  });
  return { repository, target, seams };
}

/** One sealed full of the image, read as the tests read raw files. */
async function backUp({ repository, target, seams }: Parts, { file, sizeBytes }: Image): Promise<RestorePointId> {
  const run = runOf(1);
  const { restorePointId } = await repository.openRestorePoint(specOf(run));
  const disk = planOf(sizeBytes);
  const assigned = await repository.assignTransfer({ restorePointId, run, disk, checkpoint: 'c', assignment: 1 });
  const order = orderOf({ disk: { file }, sizeBytes, blockSize: MIB, endpoint: target.endpoint });
  const laneEntry = new URL('../../tests/fixtures/mover/source-lane.ts', import.meta.url);
  const pool = createSourcePool({ laneCount: LANES, laneEntry, seams });
  try {
    const assignment = { ...assigned, endpoint: target.endpoint };
    await pool.transfer({ ...order, access: { ...order.access, run }, assignment });
  } finally {
    await pool.close();
  }
  await repository.seal(sealOf(restorePointId, run));
  await target.closePacks();
  return restorePointId;
}

/** A new repository in `root` that holds one restore point of the image. */
export async function startTidemark(root: string, image: Image, secret: Secret | null): Promise<Tidemark> {
  const parts = await open(root, secret);
  const { repository, target, seams } = parts;
  const restorePointId = await backUp(parts, image);
  const pool = createRestorePool({ laneCount: LANES, laneEntry: workerLane('restore-lane'), seams });
  const { signal } = new AbortController();
  let runs = 1;
  return {
    folder: path.join(root, 'r'),
    check: async (depth) => {
      const request = { depth, vmId: null, restorePointId: null, maxBytes: null, maxMs: null };
      const report = await repository.check(request, { signal, onProgress: () => undefined });
      if (!report.whole || report.damages.length > 0) throw new Error(`not sound: ${JSON.stringify(report)}`);
      return report;
    },
    restore: async (folder) => {
      const run = runOf((runs += 1));
      const disks = [{ diskKey: DISK, name: RESTORED, sizeBytes: image.sizeBytes }];
      const made = await createTargets({ run, folder, allowedFolders: [folder], format: 'raw', disks });
      const of = { run, restorePointId, diskKey: DISK, endpoint: target.endpoint, signal };
      await pool.restoreDisk({ ...of, target: made[0]! });
      await finishTargets({ run, folder });
    },
    close: async () => {
      await pool.close();
      await target.close();
      await repository.close();
    },
  };
}

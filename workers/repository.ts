/**
 * The repositories of this machine: one folder each, locked, with the target its transfers connect to. All are opened
 * before the process says that it is ready, so that transfers of before a restart find their restore points open.
 */
import { join } from 'node:path';
import { createRepositoryActivities } from '../activities/repository/repository-activities.ts';
import { type HeldRepository, RepositoryHolder } from '../activities/repository/repository-holder.ts';
import { startMoverTarget } from '../engines/mover/target/mover-target.ts';
import { openPackThreads } from '../engines/repository/maintenance/pack-threads.ts';
import { openRepository } from '../engines/repository/open-repository.ts';
import type { StorageDescription } from '../engines/repository/storage/storage.ts';
import type { StackLayout } from '../engines/stack/layout.ts';
import type { RepositoryConfig } from '../schema/domain/configuration.ts';
import { repositoryCtlQueue } from '../schema/domain/queues.ts';
import type { Seams } from '../schema/domain/seams.ts';
import type { PackLaneData } from './lanes/pack-lane.ts';
import type { RepositoryLaneData } from './lanes/target-lane.ts';
import { loadMachine, stateLayout } from './runtime/config.ts';
import { readSecret } from './runtime/repository-secret.ts';
import { openRepositoryStorage } from './runtime/repository-storage.ts';
import { slotsFor } from './runtime/slots.ts';
import { runWorkerProcess, type ServedQueue } from './runtime/worker-process.ts';

async function openWithTarget(
  { repositoryId, folder, lanes, encryption }: RepositoryConfig,
  layout: StackLayout,
  seams: Seams,
): Promise<HeldRepository> {
  const indexFolder = layout.repositoryIndexFolder(repositoryId);
  const storage: StorageDescription = { kind: 'folder', folder };
  const repository = await openRepository({
    storage: openRepositoryStorage(storage, seams),
    repositoryId,
    // Read at each try: it may be put where it should be while the process runs.
    secret: encryption ? await readSecret(encryption, { environment: process.env, log: seams.log }) : null,
    indexFolder,
    packWorker: ({ uuid, keys }) =>
      openPackThreads({
        entry: new URL('./lanes/pack-lane.ts', import.meta.url),
        data: { storage, keys, uuid } satisfies PackLaneData,
        count: lanes,
      }),
    seams,
  });
  try {
    const target = await startMoverTarget({
      listen: { unix: join(layout.runFolder, `target.${repositoryId}.sock`) },
      laneCount: lanes,
      laneEntry: new URL('./lanes/target-lane.ts', import.meta.url),
      laneData: { storage, keys: repository.laneKeys } satisfies RepositoryLaneData,
      registrar: repository.registrar,
      restoreSource: repository.restoreSource,
      rehearse: (restorePointId, run) => repository.rehearse(restorePointId, run),
      seams,
    });
    const close = async (): Promise<void> => {
      await target.close();
      await repository.close();
    };
    return { repository, endpoint: target.endpoint, close };
  } catch (error) {
    await repository.close();
    throw error;
  }
}

await runWorkerProcess({
  name: 'repository',
  open: async ({ seams }) => {
    const layout = stateLayout();
    const machine = await loadMachine(layout);
    if (!machine?.repositories.length) return null;
    const repositories = machine.repositories.map((config) => {
      const { repositoryId } = config;
      const open = (): Promise<HeldRepository> => openWithTarget(config, layout, seams);
      const holder = new RepositoryHolder({ repositoryId, open, clock: seams.clock, log: seams.log });
      const queue: ServedQueue = {
        queue: repositoryCtlQueue(repositoryId),
        activities: createRepositoryActivities({ open: () => holder.open() }),
        slots: slotsFor(config.slots),
        graceMs: 10_000,
      };
      return { holder, queue };
    });
    // One that cannot be opened is in nobody else's way: its verbs say why.
    await Promise.allSettled(repositories.map(({ holder }) => holder.open()));
    return {
      queues: () => repositories.map(({ queue }) => queue),
      close: async () => void (await Promise.all(repositories.map(({ holder }) => holder.close()))),
    };
  },
});

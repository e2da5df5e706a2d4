/**
 * The repositories of this machine: one folder each, locked, with the target its transfers connect to. All are opened
 * before the process says that it is ready, so that transfers of before a restart find their restore points open.
 */
import { join } from 'node:path';
import { createRepositoryActivities } from '../activities/repository/repository-activities.ts';
import { type HeldRepository, RepositoryHolder } from '../activities/repository/repository-holder.ts';
import { createRepositoryWork } from '../activities/repository/repository-work.ts';
import { ServerClock } from '../activities/repository/server-clock.ts';
import { type MoverTarget, startMoverTarget } from '../engines/mover/target/mover-target.ts';
import { type LimitsConfig, Throttle } from '../engines/mover/throttle/throttle.ts';
import { openRepository } from '../engines/repository/open-repository.ts';
import { IDLE_PACK_MS } from '../engines/repository/pack/record-sink.ts';
import type { StorageDescription } from '../engines/repository/storage/storage.ts';
import { loadGrantKey, signGrant } from '../engines/security/grants.ts';
import { securityLayout } from '../engines/security/security-layout.ts';
import type { StackLayout } from '../engines/stack/layout.ts';
import type { MachineConfig, RepositoryConfig } from '../schema/domain/configuration.ts';
import type { RepositorySpace } from '../schema/domain/maintenance-sessions.ts';
import { repositoryCtlQueue, repositoryQueue } from '../schema/domain/queues.ts';
import type { Seams } from '../schema/domain/seams.ts';
import type { TargetLaneParts } from './lanes/target-lane.ts';
import { advertised } from './runtime/advertised-address.ts';
import { laneSecurityOf, loadMachine, stateLayout } from './runtime/config.ts';
import { followMachine } from './runtime/follow-machine.ts';
import { packThreadsOf } from './runtime/pack-threads.ts';
import { readSecret } from './runtime/repository-secret.ts';
import { repositorySpace } from './runtime/repository-space.ts';
import { openRepositoryStorage } from './runtime/repository-storage.ts';
import { slotsFor } from './runtime/slots.ts';
import { runWorkerProcess, type ServedQueue } from './runtime/worker-process.ts';

/** The leases of maintenance let through fewer. */
const MOST_LONG_WORK = 8;
/** People look at its progress. */
const PROGRESS_AGE_MS = 2000;

/** `preferred`: networks, as they are configured now. */
type Shared = { serverClock: ServerClock; throttle: Throttle; preferred: () => readonly string[] };

async function openWithTarget(
  { repositoryId, folder, lanes, encryption, lockDays, listen }: RepositoryConfig,
  machine: MachineConfig,
  layout: StackLayout,
  seams: Seams,
  { serverClock, throttle, preferred }: Shared,
): Promise<HeldRepository> {
  const indexFolder = layout.repositoryIndexFolder(repositoryId);
  const storage: StorageDescription = { kind: 'folder', folder };
  let target: MoverTarget | null = null;
  const repository = await openRepository({
    storage: openRepositoryStorage(storage, seams),
    repositoryId,
    // Read at each try: it may be put where it should be while the process runs.
    secret: encryption ? await readSecret(encryption, { environment: process.env, log: seams.log }) : null,
    indexFolder,
    packWorker: packThreadsOf(storage, lanes),
    idlePackMs: IDLE_PACK_MS,
    closePacks: async () => target?.closePacks(),
    tellLanes: async (keys) => target?.tell(keys),
    seams,
    serverTime: () => serverClock.now(),
    ...(lockDays === undefined ? {} : { lockDays }),
  });
  try {
    const grantKey = await loadGrantKey(securityLayout(layout.configFolder).folder);
    const security = { ...laneSecurityOf(machine, layout), grantKey };
    const mover = await startMoverTarget({
      listenSecurely: listen,
      listen: { unix: join(layout.runFolder, `target.${repositoryId}.sock`) },
      laneCount: lanes,
      laneEntry: new URL('./lanes/target-lane.ts', import.meta.url),
      laneData: { storage, keys: repository.laneKeys, security: listen ? security : null } satisfies TargetLaneParts,
      registrar: repository.registrar,
      restoreSource: repository.restoreSource,
      rehearse: (restorePointId, run) => repository.rehearse(restorePointId, run),
      throttle: throttle.ofRepository(repositoryId),
      seams,
    });
    const close = async (): Promise<void> => {
      await mover.close();
      await repository.close();
    };
    target = mover;
    const space = (): Promise<RepositorySpace | null> => repositorySpace(storage, seams.clock);
    const endpoint = { ...(mover.endpoint as { unix: string }), machineId: machine.machineId };
    const { secureEndpoint } = mover;
    return {
      repository,
      // Asked for at each phase anew: the preferred networks may have changed.
      get endpoint() {
        return secureEndpoint ? { ...endpoint, listen: advertised(secureEndpoint, preferred()) } : endpoint;
      },
      signGrant: (of) => signGrant(grantKey, of),
      space,
      close,
    };
  } catch (error) {
    await repository.close();
    throw error;
  }
}

const limitsOf = ({ networks, repositories }: MachineConfig): LimitsConfig => ({
  networks: networks ?? null,
  repositories: new Map(repositories.flatMap(({ repositoryId, limits }) => (limits ? [[repositoryId, limits]] : []))),
});

await runWorkerProcess({
  name: 'repository',
  open: async ({ seams, signal }) => {
    const layout = stateLayout();
    const machine = await loadMachine(layout);
    if (!machine?.repositories.length) return null;
    const serverClock = new ServerClock(seams.clock);
    const throttle = new Throttle(seams);
    let current = machine;
    const take = (changed: MachineConfig): void => {
      current = changed;
      throttle.configure(limitsOf(changed));
    };
    take(machine);
    void followMachine(layout, seams, signal, take);
    const shared = { serverClock, throttle, preferred: () => current.networks?.preferred ?? [] };
    const repositories = machine.repositories.map((config) => {
      const { repositoryId } = config;
      const open = (): Promise<HeldRepository> => openWithTarget(config, machine, layout, seams, shared);
      const holder = new RepositoryHolder({ repositoryId, open, clock: seams.clock, log: seams.log });
      const verbs: ServedQueue = {
        queue: repositoryCtlQueue(repositoryId),
        activities: createRepositoryActivities({ open: () => holder.open(), clock: seams.clock, serverClock }),
        slots: slotsFor(config.slots),
        graceMs: 10_000,
      };
      const work: ServedQueue = {
        queue: repositoryQueue(repositoryId),
        activities: createRepositoryWork({ open: () => holder.open(), serverClock }),
        slots: MOST_LONG_WORK,
        heartbeatThrottleMs: PROGRESS_AGE_MS,
      };
      return { holder, queues: [verbs, work] };
    });
    // One that cannot be opened is in nobody else's way: its verbs say why.
    await Promise.allSettled(repositories.map(({ holder }) => holder.open()));
    return {
      queues: () => repositories.flatMap(({ queues }) => queues),
      close: async () => {
        throttle.close();
        await Promise.all(repositories.map(({ holder }) => holder.close()));
      },
    };
  },
});

/** Restore points of one repository, on the machine that holds its folder. */
import { Context } from '@temporalio/activity';
import { type Grant, restoreGrantEnd } from '../../engines/security/grants.ts';
import { applyRetention } from '../../engines/repository/maintenance/apply-retention.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { errorCodeOf } from '../../schema/domain/errors.ts';
import type { TargetEndpoint } from '../../schema/domain/hypervisor.ts';
import { diskKey, type RestorePointId } from '../../schema/domain/ids.ts';
import type { Clock } from '../../schema/domain/seams.ts';
import { beating } from '../beating.ts';
import type { RepositorySpace } from '../../schema/domain/maintenance-sessions.ts';
import type { RepositoryActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import { changeRestorePoint } from './change-restore-point.ts';
import type { ServerClock } from './server-clock.ts';
import { namedRuns, packRestorePoints, pageOf, suspectsOf } from './restore-point-pages.ts';

export type OpenedRepository = {
  repository: Repository;
  endpoint: TargetEndpoint;
  /** What a machine shows to be let at a transfer; hex. */
  signGrant: (of: Grant) => string;
  /** Null: nobody can say. */
  space: () => Promise<RepositorySpace | null>;
};
/** `open`: the repository and where its mover listens; opens it when need be, and throws why it cannot. */
export type RepositoryDependencies = { open: () => Promise<OpenedRepository>; clock: Clock; serverClock: ServerClock };

export function createRepositoryActivities({ open, clock, serverClock }: RepositoryDependencies): RepositoryActivities {
  const verb = <T>(work: (opened: OpenedRepository) => Promise<T>): Promise<T> => {
    serverClock.observe(Context.current().info);
    return beating(async () => await work(await open()));
  };
  return translating({
    openRestorePoint: (spec) =>
      verb(async ({ repository, endpoint }) => ({ ...(await repository.openRestorePoint(spec)), endpoint })),
    declareDisks: (of) => verb(({ repository }) => repository.declareDisks(of)),
    assignTransfer: ({ machineId, ...request }) =>
      verb(async ({ repository, endpoint, signGrant }) => {
        const assigned = await repository.assignTransfer(request);
        if (machineId === undefined) return { ...assigned, endpoint };
        return { ...assigned, endpoint, grant: signGrant({ purpose: 'backup', machineId, ...assigned }) };
      }),
    sealRestorePoint: (request) =>
      verb(async ({ repository, space }) => {
        const sealed = await repository.seal(request);
        return { ...sealed, space: await space(), lockedUntil: lockedUntilOf(repository, sealed.restorePointId) };
      }),
    abortRestorePoint: (of) => verb(({ repository }) => repository.abort(of)),
    openRestore: ({ restorePointId, run, machineId }) =>
      verb(async ({ repository, endpoint, signGrant }) => {
        const { manifest } = repository.describeSealed(restorePointId);
        const disks = manifest.disks.map(({ diskKey, sizeBytes }) => ({ diskKey, sizeBytes }));
        const suspect = manifest.suspect || repository.markOf(restorePointId)?.state === 'suspect';
        const opened = await Promise.resolve({ endpoint, suspect, disks });
        if (machineId === undefined || run === undefined) return opened;
        const grantEnd = restoreGrantEnd(clock.now());
        const of = {
          purpose: 'restore',
          machineId,
          restorePointId,
          run,
          diskKey: diskKey(''),
          fence: grantEnd,
        } as const;
        return { ...opened, grant: signGrant(of), grantEnd };
      }),
    applyRetention: (of) =>
      verb(({ repository }) => applyRetention(repository, { ...of, again: Context.current().info.attempt > 1 })),
    listRestorePoints: ({ after }) => verb(({ repository }) => pageOf(repository, after)),
    describeRestorePoints: ({ restorePointIds }) =>
      verb(({ repository }) => packRestorePoints(repository, restorePointIds)),
    changeRestorePoint: (of) => verb(({ repository }) => changeRestorePoint(repository, of, clock)),
    resetClock: ({ today }) => verb(({ repository }) => repository.resetClock(today)),
    listSuspects: ({ lineage }) => verb(({ repository }) => suspectsOf(repository, lineage)),
    listOpenRestorePoints: () =>
      verb(async ({ repository }) => repository.listOpen().map(({ disks: _disks, ...point }) => point)),
    namedRuns: ({ runs }) => verb(async ({ repository }) => namedRuns(repository, runs)),
  } satisfies RepositoryActivities);
}

/** Null also for one that is in the trash by now: the seal was asked for again. */
function lockedUntilOf(repository: Repository, id: RestorePointId): string | null {
  try {
    return repository.flagsOf(id).lockedUntil;
  } catch (error) {
    if (errorCodeOf(error) === 'RESTORE_POINT_NOT_FOUND') return null;
    throw error;
  }
}

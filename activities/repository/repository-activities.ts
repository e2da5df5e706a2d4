/** Restore points of one repository, on the machine that holds its folder. */
import { Context } from '@temporalio/activity';
import { applyRetention } from '../../engines/repository/maintenance/apply-retention.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
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
  endpoint: Endpoint;
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
    assignTransfer: (request) =>
      verb(async ({ repository, endpoint }) => ({ ...(await repository.assignTransfer(request)), endpoint })),
    sealRestorePoint: (request) =>
      verb(async ({ repository, space }) => ({ ...(await repository.seal(request)), space: await space() })),
    abortRestorePoint: (of) => verb(({ repository }) => repository.abort(of)),
    openRestore: ({ restorePointId }) =>
      verb(async ({ repository, endpoint }) => {
        const { manifest } = repository.describeSealed(restorePointId);
        const disks = manifest.disks.map(({ diskKey, sizeBytes }) => ({ diskKey, sizeBytes }));
        const suspect = manifest.suspect || repository.markOf(restorePointId)?.state === 'suspect';
        return await Promise.resolve({ endpoint, suspect, disks });
      }),
    applyRetention: (of) => verb(({ repository }) => applyRetention(repository, of)),
    listRestorePoints: ({ after }) =>
      verb(async ({ repository }) => pageOf(repository, after, new Date(clock.now()).toISOString())),
    describeRestorePoints: ({ restorePointIds }) =>
      verb(async ({ repository }) => packRestorePoints(repository, restorePointIds)),
    changeRestorePoint: (of) => verb(({ repository }) => changeRestorePoint(repository, of)),
    listSuspects: ({ lineage }) => verb(async ({ repository }) => suspectsOf(repository, lineage)),
    listOpenRestorePoints: () =>
      verb(async ({ repository }) =>
        repository.listOpen().map(({ restorePointId, run, lastWriteAt }) => ({ restorePointId, run, lastWriteAt })),
      ),
    namedRuns: ({ runs }) => verb(async ({ repository }) => namedRuns(repository, runs)),
  } satisfies RepositoryActivities);
}

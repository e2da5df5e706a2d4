/** Restore points of one repository, on the machine that holds its folder. */
import type { Repository } from '../../engines/repository/repository.ts';
import type { Endpoint } from '../../schema/domain/hypervisor.ts';
import { beating } from '../beating.ts';
import type { RepositoryActivities } from '../contract.ts';
import { translating } from '../failures.ts';

export type OpenedRepository = { repository: Repository; endpoint: Endpoint };
/** `open`: the repository and where its mover listens; opens it when need be, and throws why it cannot. */
export type RepositoryDependencies = { open: () => Promise<OpenedRepository> };

export function createRepositoryActivities({ open }: RepositoryDependencies): RepositoryActivities {
  const verb = <T>(work: (opened: OpenedRepository) => Promise<T>): Promise<T> =>
    beating(async () => await work(await open()));
  return translating({
    openRestorePoint: (spec) =>
      verb(async ({ repository, endpoint }) => ({ ...(await repository.openRestorePoint(spec)), endpoint })),
    declareDisks: (of) => verb(({ repository }) => repository.declareDisks(of)),
    assignTransfer: (request) =>
      verb(async ({ repository, endpoint }) => ({ ...(await repository.assignTransfer(request)), endpoint })),
    sealRestorePoint: (request) => verb(({ repository }) => repository.seal(request)),
    abortRestorePoint: (of) => verb(({ repository }) => repository.abort(of)),
    openRestore: ({ restorePointId }) =>
      verb(async ({ repository, endpoint }) => {
        const { manifest } = repository.describeSealed(restorePointId);
        const disks = manifest.disks.map(({ diskKey, sizeBytes }) => ({ diskKey, sizeBytes }));
        return await Promise.resolve({ endpoint, suspect: manifest.suspect, disks });
      }),
  } satisfies RepositoryActivities);
}

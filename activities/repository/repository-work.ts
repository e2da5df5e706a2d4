/** Long work on what a repository keeps, on a queue of its own: sessions never wait behind it for a slot of the worker. */
import { Context } from '@temporalio/activity';
import type { LongWork } from '../../engines/repository/maintenance/long-work.ts';
import type { Repository } from '../../engines/repository/repository.ts';
import { TidemarkError } from '../../schema/domain/errors.ts';
import type { CheckReport, MaintenanceProgress } from '../../schema/domain/maintenance.ts';
import type { RepositoryWorkActivities } from '../contract.ts';
import { translating } from '../failures.ts';
import type { RepositoryDependencies } from './repository-activities.ts';

const BEAT_MS = 1000;
/** What a report may tell: it goes through a history, and people read no more of it. */
const MOST_DAMAGES = 100;
const MOST_POINTS_EACH = 20;
const MOST_POINTS = 2000;
const MOST_VMS = 500;

export function createRepositoryWork({
  open,
  serverClock,
}: Pick<RepositoryDependencies, 'open' | 'serverClock'>): RepositoryWorkActivities {
  const work = <T>(step: string, verb: (repository: Repository, work: LongWork) => Promise<T>): Promise<T> =>
    telling(step, async (long) => {
      serverClock.observe(Context.current().info);
      return await verb((await open()).repository, long);
    });
  return translating({
    collectGarbage: () => work('collection', (repository, long) => repository.collect(long)),
    checkRepository: (request) =>
      work('check', async (repository, long) => shortened(await repository.check(request, long))),
    repairRepository: ({ dryRun }) =>
      work('repair', async (repository, long) => {
        const report = await repository.repair({ ...long, dryRun });
        return { ...report, damaged: report.damaged.slice(0, MOST_POINTS) };
      }),
    measureRepository: () =>
      telling('statistics', async () => {
        serverClock.observe(Context.current().info);
        const { repository, space } = await open();
        const { byVm, ...statistics } = await repository.statistics();
        const largest = byVm.toSorted((a, b) => b.storedBytes - a.storedBytes).slice(0, MOST_VMS);
        return { statistics: { ...statistics, byVm: largest }, space: await space() };
      }),
  } satisfies RepositoryWorkActivities);
}

function shortened(report: CheckReport): { report: CheckReport; damageCount: number } {
  const damages = report.damages
    .slice(0, MOST_DAMAGES)
    .map((damage) => ({ ...damage, restorePoints: damage.restorePoints.slice(0, MOST_POINTS_EACH) }));
  const [marked, healed] = [report.marked.slice(0, MOST_POINTS), report.healed.slice(0, MOST_POINTS)];
  return { report: { ...report, damages, marked, healed }, damageCount: report.damages.length };
}

/**
 * Heartbeats the newest progress each second. What ends because this worker is being shut down fails with HOST_DRAINING:
 * the next try, in the next process, begins where this one may leave off.
 */
async function telling<T>(step: string, work: (long: LongWork) => Promise<T>): Promise<T> {
  const context = Context.current();
  let newest: MaintenanceProgress = { step, doneBytes: 0, totalBytes: 0 };
  const beat = (): void => context.heartbeat(newest);
  beat();
  const timer = setInterval(beat, BEAT_MS);
  try {
    return await work({ signal: context.cancellationSignal, onProgress: (progress) => (newest = progress) });
  } catch (error) {
    beat();
    if (!context.cancellationDetails?.workerShutdown) throw error;
    throw new TidemarkError('HOST_DRAINING', `${step}: the worker of this machine is being shut down`, { step }, error);
  } finally {
    clearInterval(timer);
  }
}

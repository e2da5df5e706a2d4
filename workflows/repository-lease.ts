/** The slot a maintenance has at its repository: last in line, and given up between two steps when sessions wait. */
import { CancellationScope } from '@temporalio/workflow';
import { runKeyOf } from '../schema/domain/ids.ts';
import { controlQueue, controlWaitQueue } from '../schema/domain/queues.ts';
import { requestOrders } from '../schema/domain/scheduling.ts';
import type { MaintenanceRun } from './maintenance-run.ts';
import { say } from './say.ts';

export class RepositoryLease {
  readonly #run: MaintenanceRun;

  constructor(run: MaintenanceRun) {
    this.#run = run;
  }

  async take(): Promise<void> {
    const { workflowId, input } = this.#run;
    const { repositoryId, startedBy } = input;
    const wants = { vmId: null, hostId: null, proxies: null, excludedProxies: [], repositoryId, pairs: 1 };
    const request = {
      workflowId,
      requestNumber: 0,
      runKey: runKeyOf(workflowId),
      order: requestOrders.maintenance,
      manual: startedBy === 'manual',
      // From now on: whoever gave way has not waited.
      arrivedAt: Date.now(),
      wants,
    };
    await say('acquireResources', { queue: controlWaitQueue, summary: `a slot of repository ${repositoryId}` })(
      request,
    );
  }

  /** Also the place in line. */
  giveBack(): Promise<void> {
    const { workflowId } = this.#run;
    return CancellationScope.nonCancellable(() =>
      say('releaseResources', { queue: controlQueue })({ workflowId, leaseIds: null }),
    );
  }

  async giveWay(): Promise<void> {
    const { workflowId, input } = this.#run;
    const { repositoryId } = input;
    const { waiting } = await say('othersWait', { queue: controlQueue })({ repositoryId, workflowId });
    if (waiting === 0) return;
    await this.giveBack();
    this.#run.note({
      level: 'info',
      code: 'GAVE_WAY',
      message: `gave way to ${waiting} that waited for the repository`,
    });
    await this.take();
  }
}

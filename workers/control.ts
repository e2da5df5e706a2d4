/** The control worker: workflow code, plans, leases, rows of the catalog. The only one that knows where that is. */
import { setFlagsFromString } from 'node:v8';
import { Client } from '@temporalio/client';
import type { NativeConnection } from '@temporalio/worker';
import { ClosedOwners } from '../activities/resources/closed-owners.ts';
import { createJanitorActivities } from '../activities/resources/janitor-activities.ts';
import { storeReachability } from '../activities/resources/reachability.ts';
import { createGrantLoop, createResourceActivities } from '../activities/resources/resource-activities.ts';
import { WorkerWatch } from '../activities/resources/worker-watch.ts';
import { createMaintenanceActivities } from '../activities/session/maintenance-activities.ts';
import { createRestoreSessionActivities } from '../activities/session/restore-session-activities.ts';
import { createSessionActivities } from '../activities/session/session-activities.ts';
import { type CatalogDatabase, connectCatalog } from '../schema/catalog/connection.ts';
import { listResources } from '../schema/catalog/resources.ts';
import { controlQueue, controlWaitQueue } from '../schema/domain/queues.ts';
import { stateLayout, temporalAddress } from './runtime/config.ts';
import { catalogConnection } from './runtime/database.ts';
import { periodically } from './runtime/periodically.ts';
import { ScheduleKeeper } from './runtime/schedules.ts';
import { loadDataConverter } from './runtime/temporal.ts';
import { serveCodec } from './runtime/codec-server.ts';
import { EnrolmentKeeper } from './runtime/serve-enrolment.ts';
import { createQueueView, createWorkflowView, listWorkerSigns } from './runtime/temporal-views.ts';
import { type RoleContext, runWorkerProcess, type ServedQueue } from './runtime/worker-process.ts';
import { loadWorkflowBundle, workflowCode } from './runtime/workflow-bundle.ts';

/** 387-497 MB were measured with 150, more than 600 MB with 600. */
const MOST_CACHED_WORKFLOWS = 150;
/** Each waiter holds a slot, and does nothing. */
const MOST_WAITERS = 2000;
const LOOK_AT_WORKERS_MS = 3000;
const SWEEP_MS = 15_000;
/** A new site is in force so soon. */
const KEEP_SCHEDULES_MS = 5000;
/** One question per repository. */
const LOOK_AFTER_SCHEDULES_MS = 3 * 60_000;
const KEEP_ENROLMENT_MS = 2000;

/**
 * Of errors in workflow code. Temporal's library notes where each promise of a workflow is made; with the usual ten frames that was
 * a third of the processor time of a replay. Contexts that exist already, such as this thread's, keep theirs.
 */
const FRAMES_IN_WORKFLOWS = 2;

type Parts = { db: CatalogDatabase; client: Client; context: RoleContext };

function createControl({ db, client, context }: Parts) {
  const { clock, log } = context.seams;
  const workflows = createWorkflowView(client);
  const watch = new WorkerWatch();
  const grants = createGrantLoop({ db, clock, log });
  const kick = (): void => grants.kick();
  const queues = createQueueView(client, watch, clock);
  const activities = {
    ...createResourceActivities({ db, queues, clock, log }, grants),
    ...createSessionActivities({ db, workflows, clock }),
    ...createRestoreSessionActivities({ db, clock }),
    ...createMaintenanceActivities({ db, workflows, clock }),
    ...createJanitorActivities({ db, workflows, clock, log }),
  };
  const schedules = new ScheduleKeeper(client, log);
  const owners = new ClosedOwners({ db, workflows, clock, log, onFreed: kick });
  const lookAtWorkers = async (): Promise<void> => {
    try {
      watch.observe(await listWorkerSigns(client), clock.monotonic());
    } catch (error) {
      watch.missed();
      throw error;
    }
    if (await storeReachability({ db, watch, clock, log })) kick();
  };
  const every = (what: string, intervalMs: number, work: () => Promise<unknown>): Promise<void> =>
    periodically({ what, intervalMs, ...context }, work);
  const background = Promise.all([
    every('looking at the workers', LOOK_AT_WORKERS_MS, lookAtWorkers),
    every('keeping the schedules', KEEP_SCHEDULES_MS, async () =>
      schedules.keep(await listResources(db, 'repository')),
    ),
    every('looking after the schedules', LOOK_AFTER_SCHEDULES_MS, () => schedules.lookAfter()),
    every('the sweep of closed workflows', SWEEP_MS, () => owners.sweep()),
  ]);
  return { activities, background };
}

function queuesOf(activities: object, code: string): ServedQueue[] {
  return [
    {
      queue: controlQueue,
      activities,
      slots: 100,
      polls: 5,
      graceMs: 10_000,
      workflows: {
        workflowBundle: { code },
        maxCachedWorkflows: MOST_CACHED_WORKFLOWS,
        // After kill -9 the next process gets the workflow tasks so soon, instead of after 10 s.
        stickyQueueScheduleToStartTimeout: '2 s',
        workflowThreadPoolSize: 1,
      },
    },
    { queue: controlWaitQueue, activities, slots: MOST_WAITERS, polls: 5 },
  ];
}

setFlagsFromString(`--stack-trace-limit=${FRAMES_IN_WORKFLOWS}`);
await runWorkerProcess({
  name: 'control',
  open: async (context) => {
    const { namespace } = await temporalAddress();
    const db = connectCatalog(await catalogConnection());
    // While Temporal comes up, too.
    const dataConverter = await loadDataConverter();
    const code = await loadWorkflowBundle(
      stateLayout().workflowBundleFolder,
      context.seams.log,
      dataConverter ? { ...workflowCode, failureConverter: 'workers/runtime/encoded-failures.ts' } : workflowCode,
    );
    let background: Promise<unknown> = Promise.resolve();
    const [codec = null] = dataConverter?.payloadCodecs ?? [];
    const codecServer = await serveCodec(codec, process.env, context.seams.log);
    const enrolment = new EnrolmentKeeper(stateLayout(), context.seams);
    const enrolling = periodically({ what: 'letting machines enrol', intervalMs: KEEP_ENROLMENT_MS, ...context }, () =>
      enrolment.keep(),
    );
    return {
      queues: (connection: NativeConnection) => {
        const client = new Client({ connection, namespace, ...(dataConverter ? { dataConverter } : {}) });
        const control = createControl({ db, client, context });
        background = control.background;
        return queuesOf(control.activities, code);
      },
      close: async () => {
        await Promise.all([background, enrolling]);
        await Promise.all([enrolment.close(), codecServer?.close()]);
        await db.destroy();
      },
    };
  },
});

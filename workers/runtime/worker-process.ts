/**
 * Life of a worker process: opens what its role needs, waits for Temporal, serves its queues, says that it is ready,
 * and drains when it is told to end or its parent is gone. A role with nothing configured is ready and idle.
 */
import { existsSync } from 'node:fs';
import { hostname } from 'node:os';
import { type NativeConnection, Worker, type WorkerOptions } from '@temporalio/worker';
import { messageOf } from '../../schema/domain/errors.ts';
import type { Seams } from '../../schema/domain/seams.ts';
import { securityLayout } from '../../engines/security/security-layout.ts';
import { stateLayout, type TemporalAddress, temporalAddress } from './config.ts';
import { createSeams } from './seams.ts';
import { connectTemporal, installRuntime, loadDataConverter } from './temporal.ts';
import { untilTemporalTlsChanges } from './temporal-tls.ts';

/** One task queue. */
export type ServedQueue = {
  queue: string;
  activities: object;
  /** Activities at once. */
  slots: number;
  /** Long polls open at once; default 2. */
  polls?: number;
  /** How long activities may go on after the end was asked for; then they are cancelled. Default 0. */
  graceMs?: number;
  /** How old what Temporal knows of a heartbeat may be, and how late a cancellation; default 5 s. */
  heartbeatThrottleMs?: number;
  /** Only the control worker runs workflows. */
  workflows?: Pick<
    WorkerOptions,
    'workflowBundle' | 'maxCachedWorkflows' | 'stickyQueueScheduleToStartTimeout' | 'workflowThreadPoolSize'
  >;
};

export type Opened = {
  queues(connection: NativeConnection): ServedQueue[] | Promise<ServedQueue[]>;
  /** After the queues are no longer served. */
  close(): Promise<void>;
};
export type RoleContext = { seams: Seams; signal: AbortSignal };
/** `open` gives null when nothing of this role is configured here. */
export type Role = { name: string; open(context: RoleContext): Promise<Opened | null> };

/** The supervisor kills after 20 s. */
const DRAIN_LIMIT_MS = 18_000;
/** Activities that do not end when cancelled are left behind. */
const FORCE_MS = 15_000;

/** Never returns: the process ends with 0 when it was told to, else with 1. */
export async function runWorkerProcess(role: Role): Promise<never> {
  const seams = createSeams(role.name);
  const { log } = seams;
  const ending = endRequest();
  ending.addEventListener('abort', () => {
    log.info('ends', { why: messageOf(ending.reason) });
    setTimeout(() => {
      log.error('does not end in time and leaves');
      process.exit(1);
    }, DRAIN_LIMIT_MS).unref();
  });
  try {
    await serve(role, { seams, signal: ending });
    process.exit(0);
  } catch (error) {
    if (ending.aborted && error === ending.reason) process.exit(0);
    log.error('ends with an error', { error: messageOf(error), stack: (error as Error).stack });
    process.exit(1);
  }
}

/** Aborts at the first request to end: a signal, or the parent gone. */
function endRequest(): AbortSignal {
  const ending = new AbortController();
  const end = (why: string): void => ending.abort(new Error(why));
  for (const signal of ['SIGTERM', 'SIGINT'] as const) process.on(signal, () => end(signal));
  process.on('disconnect', () => end('parent is gone'));
  return ending.signal;
}

const sayReady = (log: Seams['log'], queues: string[]): void => {
  log.info('ready', { queues });
  process.send?.({ ready: true });
};

/** Its libraries take long to load: only on a machine that enrolled. */
async function keepSecurityWhereEnrolled(name: string, { seams, signal }: RoleContext): Promise<void> {
  const layout = stateLayout();
  if (name === 'control' || !existsSync(securityLayout(layout.configFolder).enrolment)) return;
  const { keepSecurity } = await import('./keep-security.ts');
  await keepSecurity(layout, seams, signal);
}

/** It drains, and its parent starts it anew with what the files hold then. */
async function endWhenTlsChanges({ tls }: TemporalAddress, { seams, signal }: RoleContext): Promise<void> {
  if (!tls) return;
  await untilTemporalTlsChanges(tls, stateLayout().configFolder, seams.clock, signal);
  if (signal.aborted) return;
  seams.log.info('the certificates for Temporal changed; this process ends, to be started with the new ones');
  process.kill(process.pid, 'SIGTERM');
}

async function serve(role: Role, context: RoleContext): Promise<void> {
  const { seams, signal } = context;
  keepSecurityWhereEnrolled(role.name, context).catch((error: unknown) =>
    seams.log.error('the certificate of this machine is not kept', { error: messageOf(error) }),
  );
  const opened = await role.open(context);
  if (!opened) {
    sayReady(seams.log, []);
    return await untilAborted(signal);
  }
  try {
    const address = await temporalAddress();
    void endWhenTlsChanges(address, context);
    installRuntime(seams.log);
    const connection = await connectTemporal(address, seams, signal);
    try {
      const queues = await opened.queues(connection);
      await runQueues(role, queues, { connection, namespace: address.namespace }, context);
    } finally {
      await connection.close();
    }
  } finally {
    await opened.close();
  }
}

async function runQueues(
  role: Role,
  queues: ServedQueue[],
  where: { connection: NativeConnection; namespace: string },
  { seams, signal }: RoleContext,
): Promise<void> {
  const workers: Worker[] = [];
  const dataConverter = await loadDataConverter();
  const common = { ...where, ...(dataConverter ? { dataConverter } : {}) };
  for (const queue of queues) workers.push(await Worker.create({ ...common, ...optionsOf(role, queue) }));
  const runs = workers.map((worker) => worker.run());
  sayReady(
    seams.log,
    queues.map(({ queue }) => queue),
  );
  const shutDown = (): void => {
    for (const worker of workers) if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  // One that fails takes the others with it: a process that serves half of its queues helps nobody.
  for (const run of runs) run.catch(shutDown);
  if (signal.aborted) shutDown();
  else signal.addEventListener('abort', shutDown, { once: true });
  const ends = await Promise.allSettled(runs);
  const failed = ends.find((end) => end.status === 'rejected');
  if (failed && !signal.aborted) throw failed.reason;
  if (failed) seams.log.warn('left activities behind', { error: messageOf(failed.reason) });
}

function optionsOf(role: Role, of: ServedQueue): WorkerOptions {
  const throttle = of.heartbeatThrottleMs ?? 5000;
  return {
    taskQueue: of.queue,
    identity: `${role.name}/${process.pid}@${hostname()}`,
    activities: of.activities,
    maxConcurrentActivityTaskExecutions: of.slots,
    maxConcurrentActivityTaskPolls: of.polls ?? 2,
    maxHeartbeatThrottleInterval: throttle,
    defaultHeartbeatThrottleInterval: throttle,
    shutdownGraceTime: of.graceMs ?? 0,
    shutdownForceTime: FORCE_MS,
    ...of.workflows,
  };
}

const untilAborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve();
    // Something has to keep an idle process alive that has no parent.
    const alive = setInterval(() => undefined, 3_600_000);
    signal.addEventListener('abort', () => {
      clearInterval(alive);
      resolve();
    });
  });

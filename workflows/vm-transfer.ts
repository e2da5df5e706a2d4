/**
 * Step 8: the disks of a VM, side by side within the pairs of proxy and repository slots that were granted; the others
 * wait for a pair of this VM to free. Each assignment of a disk has a fence of its own (invariant 5).
 */
import { isCancellation, patched } from '@temporalio/workflow';
import { errorTable } from '../schema/domain/errors.ts';
import type { Checkpoint, CheckpointDisk } from '../schema/domain/hypervisor.ts';
import type { ProxyId } from '../schema/domain/ids.ts';
import { machineOfQueue, proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { DiskPlan, OpenedRestorePoint, TransferSummary } from '../schema/domain/restore-point.ts';
import type { SessionErrorView } from '../schema/domain/sessions.ts';
import { addStageTimes, noStageTimes } from '../schema/domain/stages.ts';
import { say } from './say.ts';
import { lastHeartbeatOf, viewOf } from './failures.ts';
import { fallbackWarnings, planDisk, shrinkWarnings } from './plan-disks.ts';
import { type GoesOn, ProxyTries } from './proxy-tries.ts';
import { runAllOrCancel, sideBySide } from './side-by-side.ts';
import type { DiskState } from './vm-details.ts';
import type { VmLeases } from './vm-leases.ts';
import type { VmRun } from './vm-run.ts';

type Transfers = { run: VmRun; opened: OpenedRestorePoint; checkpoint: Checkpoint; leases: VmLeases };
/** A disk, from its first try to its last. `assignments`: how many it had. */
type Work = { disk: CheckpointDisk; plan: DiskPlan; tries: ProxyTries; assignments: number };
type Way = Transfers & { pair: number; waiting: Work[] };

/** The rehearsal of step 4. */
export async function connectMovers(
  run: VmRun,
  { restorePointId, endpoint }: OpenedRestorePoint,
  proxy: ProxyId,
): Promise<void> {
  const queue = proxyCtlQueue(proxy);
  const of = { restorePointId, run: run.run, endpoint };
  await run.machines.on(queue, 'connectMovers', machineOfQueue(queue))(of);
}

/** Resolves when every disk is at the repository, whole. The first failure cancels the others and is thrown when they have ended. */
export async function transferDisks(transfers: Transfers): Promise<void> {
  const { run, opened, checkpoint, leases } = transfers;
  const plans = checkpoint.disks.map((disk) => planDisk(disk, opened, run.input.job.blockSize));
  for (const plan of plans) run.plan(plan);
  run.note(...fallbackWarnings(plans, opened), ...shrinkWarnings(plans, opened));
  const waiting = checkpoint.disks.map((disk, at) => workOf(run, disk, plans[at]!));
  const pairs = Math.max(1, Math.min(leases.proxies.length, waiting.length));
  await runAllOrCancel(Array.from({ length: pairs }, (_, pair) => () => goThrough({ ...transfers, pair, waiting })));
}

/** One disk after another, until none waits, or the pair's proxy is silent and another pair takes them. */
async function goThrough(way: Way): Promise<void> {
  const { leases, pair, waiting } = way;
  leases.enter(pair);
  for (let next = waiting.shift(); next; next = waiting.shift()) if (!(await transferOne(way, next))) return;
  // At once: nobody may leave a disk to a pair that takes no more.
  leases.leave(pair);
}

/** False: the disk is left to another pair. */
async function transferOne(way: Way, work: Work): Promise<boolean> {
  for (;;) {
    work.assignments += 1;
    const state = way.run.plan(work.plan);
    try {
      await transferOnce(way, work, state);
      work.tries.end();
      return true;
    } catch (error) {
      noteLost(state, error);
      if (work.plan.mode === 'cbt' && isTrackingLost(error)) {
        work.plan = withoutTracking(way, work, viewOf(error));
        work.tries.beginAnew();
        continue;
      }
      const { proxyId } = state;
      const whenSilent = (): Promise<GoesOn> => goOnElsewhere(way, work, proxyId!);
      if ((await work.tries.another(error, proxyId, whenSilent)) === 'by-others') return false;
    }
  }
}

/**
 * Another proxy than the silent one, for the pair; or another pair, for the disk. What the silent one may still send is
 * fenced off before anybody else begins: the next try has an assignment of its own (invariant 5).
 */
async function goOnElsewhere(way: Way, work: Work, silent: ProxyId): Promise<GoesOn> {
  const { run, opened, leases, pair, waiting } = way;
  // A workflow of the version before waits for the silent one.
  if (run.input.job.proxies.length === 1 || !patched('another-proxy')) return 'here';
  const goesOn = (where: string): void => {
    const message = `disk ${work.disk.diskKey} goes on ${where}: proxy ${silent} is silent`;
    run.note({ level: 'info', code: 'UNREACHABLE', message });
  };
  if (await leases.replace(pair, silent, (proxy) => connectMovers(run, opened, proxy))) {
    goesOn('with another proxy');
    return 'elsewhere';
  }
  if (!leases.isBusyElsewhere(silent)) return 'here';
  waiting.unshift(work);
  leases.leave(pair);
  run.plan(work.plan).state = 'waiting';
  goesOn('after another disk');
  return 'by-others';
}

const isTrackingLost = (error: unknown): boolean =>
  !isCancellation(error) && errorTable[viewOf(error).code].disposition === 'new-base';

function workOf(run: VmRun, disk: CheckpointDisk, plan: DiskPlan): Work {
  const what = `disk ${disk.diskKey}`;
  const tries = new ProxyTries({
    verb: 'transferDisk',
    what,
    machineWaitMs: run.input.job.hostWaitMs,
    tell: (waitsFor) => run.waits.tell(what, waitsFor),
    note: (finding) => run.note(finding),
  });
  return { disk, plan, tries, assignments: 0 };
}

/** Bytes of a try that was lost count too: they were read and sent. */
function noteLost(state: DiskState, error: unknown): void {
  state.state = 'failed';
  const last = lastHeartbeatOf(error);
  state.readBytes += last?.readBytes ?? 0;
  state.sentBytes += last?.sentBytes ?? 0;
  noteStages(state, last?.stages);
}

function noteStages(state: DiskState, stages: TransferSummary['stages']): void {
  if (stages) state.stages = addStageTimes(state.stages ?? noStageTimes, stages);
}

/** Doubt means read (invariant 11), and the reason is shown. */
function withoutTracking({ run, opened }: Way, { disk }: Work, { code, message }: SessionErrorView): DiskPlan {
  const reason = { code, message };
  const verdict = { diskKey: disk.diskKey, use: 'compare', reason } as const;
  const plan = planDisk({ ...disk, verdict }, opened, run.input.job.blockSize);
  run.warn(code, `disk ${disk.diskKey} is read by ${plan.mode}: ${message}`);
  if (code === 'AUDIT_MISMATCH') run.foundSuspects = true;
  return plan;
}

async function transferOnce(way: Way, work: Work, state: DiskState): Promise<void> {
  const { run, opened, checkpoint, leases, pair } = way;
  const { plan, assignments: assignment } = work;
  const { diskKey } = work.disk;
  const what = `disk ${diskKey}`;
  const { id, machineId } = await leases.confirmedProxy(pair, assignment === 1);
  const proxy = id as ProxyId;
  state.proxyId = proxy;
  const request = {
    restorePointId: opened.restorePointId,
    run: run.run,
    disk: plan,
    checkpoint: `${checkpoint.run} ${checkpoint.takenAt}`,
    assignment,
    ...(machineId === undefined ? {} : { machineId }),
  };
  const [assigned, access] = await sideBySide([
    () => run.machines.on(run.repository, 'assignTransfer', what)(request),
    () => run.machines.on(run.host, 'openAccess', what)({ run: run.run, diskKey, reader: proxy }),
  ]);
  state.state = 'transferring';
  run.show();
  const transfer = say('transferDisk', { queue: proxyQueue(proxy), summary: `${what} on proxy ${proxy}` });
  noteDone(run, state, await transfer({ access, assignment: assigned }));
}

function noteDone(run: VmRun, state: DiskState, summary: TransferSummary): void {
  state.state = 'done';
  state.readBytes += summary.readBytes;
  state.sentBytes += summary.sentBytes;
  noteStages(state, summary.stages);
  run.show();
}

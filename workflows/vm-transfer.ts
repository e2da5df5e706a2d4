/**
 * Step 8: the disks of a VM, side by side within the pairs of proxy and repository slots that were granted; the others
 * wait for a pair of this VM to free. Each assignment of a disk has a fence of its own (invariant 5).
 */
import { isCancellation } from '@temporalio/workflow';
import { errorTable } from '../schema/domain/errors.ts';
import type { Checkpoint, CheckpointDisk } from '../schema/domain/hypervisor.ts';
import type { MachineId, ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { DiskPlan, OpenedRestorePoint, TransferSummary } from '../schema/domain/restore-point.ts';
import type { HeldLease } from '../schema/domain/scheduling.ts';
import type { SessionErrorView, TransferHeartbeat } from '../schema/domain/sessions.ts';
import { addStageTimes, noStageTimes } from '../schema/domain/stages.ts';
import { say } from './say.ts';
import { lastHeartbeatOf, viewOf } from './failures.ts';
import { fallbackWarnings, planDisk, shrinkWarnings } from './plan-disks.ts';
import { ProxyTries } from './proxy-tries.ts';
import { runAllOrCancel, sideBySide } from './side-by-side.ts';
import type { DiskState } from './vm-details.ts';
import type { VmRun } from './vm-run.ts';

/** Leases of a workflow that is not closed are not freed; somebody who frees them by hand has waited longer than this. */
const FRESH_MS = 15_000;

export type Leases = {
  /** As granted last; pairs are numbered from 0. */
  held(): readonly HeldLease[];
  /** When that was, by the workflow's time. */
  grantedMs(): number;
  /** Takes them again after LEASE_LOST. */
  again(): Promise<void>;
};

export const proxiesOf = (leases: readonly HeldLease[]): ProxyId[] =>
  leases.filter((lease) => lease.kind === 'proxy').map((lease) => lease.id as ProxyId);

type Transfers = { run: VmRun; opened: OpenedRestorePoint; checkpoint: Checkpoint; leases: Leases };
type Way = Transfers & { disk: CheckpointDisk; pair: number };

/** Resolves when every disk is at the repository, whole. The first failure cancels the others and is thrown when they have ended. */
export async function transferDisks(transfers: Transfers): Promise<void> {
  const { run, opened, checkpoint, leases } = transfers;
  const plans = checkpoint.disks.map((disk) => planDisk(disk, opened, run.input.job.blockSize));
  for (const plan of plans) run.plan(plan);
  run.note(...fallbackWarnings(plans, opened), ...shrinkWarnings(plans, opened));
  const waiting = checkpoint.disks.map((disk, at) => ({ disk, plan: plans[at]! }));
  const pairs = Math.max(1, Math.min(proxiesOf(leases.held()).length, waiting.length));
  await runAllOrCancel(
    Array.from({ length: pairs }, (_, pair) => async () => {
      for (let next = waiting.shift(); next; next = waiting.shift())
        await transferOne({ ...transfers, disk: next.disk, pair }, next.plan);
    }),
  );
}

async function transferOne(way: Way, firstPlan: DiskPlan): Promise<void> {
  const tries = triesOf(way);
  let plan = firstPlan;
  for (let assignment = 1; ; assignment += 1) {
    const state = way.run.plan(plan);
    try {
      await transferOnce(way, plan, assignment, state);
      tries.end();
      return;
    } catch (error) {
      noteLost(state, error);
      if (plan.mode === 'cbt' && isTrackingLost(error)) plan = withoutTracking(way, viewOf(error));
      else await tries.another(error, state.proxyId);
    }
  }
}

const isTrackingLost = (error: unknown): boolean =>
  !isCancellation(error) && errorTable[viewOf(error).code].disposition === 'new-base';

function triesOf({ run, disk }: Way): ProxyTries {
  const what = `disk ${disk.diskKey}`;
  return new ProxyTries({
    verb: 'transferDisk',
    what,
    machineWaitMs: run.input.job.hostWaitMs,
    tell: (waitsFor) => run.waits.tell(what, waitsFor),
    note: (finding) => run.note(finding),
  });
}

/** Bytes of a try that was lost count too: they were read and sent. */
function noteLost(state: DiskState, error: unknown): void {
  state.state = 'failed';
  const last = lastHeartbeatOf(error) as Partial<TransferHeartbeat> | undefined;
  state.readBytes += last?.readBytes ?? 0;
  state.sentBytes += last?.sentBytes ?? 0;
  noteStages(state, last?.stages);
}

function noteStages(state: DiskState, stages: TransferSummary['stages']): void {
  if (stages) state.stages = addStageTimes(state.stages ?? noStageTimes, stages);
}

/** Doubt means read (invariant 11), and the reason is shown. */
function withoutTracking({ run, disk, opened }: Way, { code, message }: SessionErrorView): DiskPlan {
  const reason = { code, message };
  const verdict = { diskKey: disk.diskKey, use: 'compare', reason } as const;
  const plan = planDisk({ ...disk, verdict }, opened, run.input.job.blockSize);
  run.warn(code, `disk ${disk.diskKey} is read by ${plan.mode}: ${message}`);
  if (code === 'AUDIT_MISMATCH') run.foundSuspects = true;
  return plan;
}

async function transferOnce(way: Way, plan: DiskPlan, assignment: number, state: DiskState): Promise<void> {
  const { run, opened, checkpoint, disk } = way;
  const { diskKey } = disk;
  const what = `disk ${diskKey}`;
  const { proxy, machineId } = await confirmedProxy(way, assignment === 1);
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

/** The proxy of this way's pair, its lease confirmed, or granted not long ago and nothing gone wrong since; and its machine. */
async function confirmedProxy(
  { run, leases, pair }: Way,
  isFirst: boolean,
): Promise<{ proxy: ProxyId; machineId: MachineId | undefined }> {
  if (!isFirst || Date.now() - leases.grantedMs() > FRESH_MS) await confirm(run, leases);
  const proxies = leases.held().filter(({ kind }) => kind === 'proxy');
  const { id, machineId } = proxies[pair % proxies.length]!;
  return { proxy: id as ProxyId, machineId };
}

async function confirm(run: VmRun, leases: Leases): Promise<void> {
  const { workflowId } = run;
  try {
    const leaseIds = leases.held().map((lease) => lease.leaseId);
    await say('confirmLeases', { queue: controlQueue })({ workflowId, leaseIds });
  } catch (error) {
    if (viewOf(error).code !== 'LEASE_LOST') throw error;
    run.note({ level: 'info', code: 'LEASE_LOST', message: 'resources are taken again: their leases were freed' });
    await leases.again();
  }
}

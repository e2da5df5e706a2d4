/**
 * Step 8: the disks of a VM, side by side within the pairs of proxy and repository slots that were granted; the others
 * wait for a pair of this VM to free. Each assignment of a disk has a fence of its own (invariant 5).
 */
import { isCancellation, sleep } from '@temporalio/workflow';
import { errorTable } from '../schema/domain/errors.ts';
import type { Checkpoint, CheckpointDisk } from '../schema/domain/hypervisor.ts';
import type { ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { DiskPlan, OpenedRestorePoint, TransferSummary } from '../schema/domain/restore-point.ts';
import type { HeldLease } from '../schema/domain/scheduling.ts';
import type { TransferHeartbeat } from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { isWorthAnotherTry, lastHeartbeatOf, timeoutTypeOf, viewOf } from './failures.ts';
import { fallbackWarnings, planDisk } from './plan-disks.ts';
import { runAllOrCancel } from './side-by-side.ts';
import type { DiskState } from './vm-details.ts';
import type { VmRun } from './vm-run.ts';

const MOST_TRIES = 5;
const FIRST_PAUSE_MS = 2000;
const LONGEST_PAUSE_MS = 30_000;
/** A worker that polled within this time is alive: its slots are full, or it has just come back. */
const ALIVE_MS = 60_000;

export type Leases = {
  /** As granted last; pairs are numbered from 0. */
  held(): readonly HeldLease[];
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
  run.note(...fallbackWarnings(plans, opened));
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
  const { run, disk } = way;
  let plan = firstPlan;
  let tries = 0;
  let silentSinceMs: number | null = null;
  for (let assignment = 1; ; assignment += 1) {
    const state = run.plan(plan);
    try {
      await transferOnce(way, plan, assignment, state);
      return;
    } catch (error) {
      noteLost(state, error);
      if (isCancellation(error)) throw error;
      const view = viewOf(error, `proxy ${state.proxyId ?? ''}`);
      if (timeoutTypeOf(error) === 'SCHEDULE_TO_START') {
        silentSinceMs ??= Date.now();
        if (Date.now() - silentSinceMs > run.input.job.hostWaitMs) throw error;
        await sayWhyProxyIsSilent(run, state);
        continue;
      }
      silentSinceMs = null;
      if (errorTable[view.code].disposition === 'new-base' && plan.mode === 'cbt') {
        plan = withoutTracking(way, view.message);
        continue;
      }
      tries += 1;
      if (!isWorthAnotherTry(view) || tries >= MOST_TRIES) throw error;
      run.note({ level: 'info', code: view.code, message: `disk ${disk.diskKey} goes on after: ${view.message}` });
      await sleep(Math.min(FIRST_PAUSE_MS * 2 ** (tries - 1), LONGEST_PAUSE_MS));
    }
  }
}

/** Bytes of a try that was lost count too: they were read and sent. */
function noteLost(state: DiskState, error: unknown): void {
  state.state = 'failed';
  const last = lastHeartbeatOf(error) as Partial<TransferHeartbeat> | undefined;
  state.readBytes += last?.readBytes ?? 0;
  state.sentBytes += last?.sentBytes ?? 0;
}

/** Doubt means read (invariant 11), and the reason is shown. */
function withoutTracking({ run, disk, opened }: Way, why: string): DiskPlan {
  const reason = { code: 'TRACKING_LOST', message: why };
  const verdict = { diskKey: disk.diskKey, use: 'compare', reason } as const;
  const plan = planDisk({ ...disk, verdict }, opened, run.input.job.blockSize);
  run.warn('TRACKING_LOST', `disk ${disk.diskKey} is read by ${plan.mode}: ${why}`);
  return plan;
}

async function transferOnce(way: Way, plan: DiskPlan, assignment: number, state: DiskState): Promise<void> {
  const { run, opened, checkpoint, disk } = way;
  const { diskKey } = disk;
  const proxy = await confirmedProxy(way);
  state.proxyId = proxy;
  const { restorePointId } = opened;
  const assigned = await run.machines.on(
    run.repository,
    'assignTransfer',
    `disk ${diskKey}`,
  )({
    restorePointId,
    run: run.run,
    disk: plan,
    checkpoint: `${checkpoint.run} ${checkpoint.takenAt}`,
    assignment,
  });
  const access = await run.machines.on(
    run.host,
    'openAccess',
    `disk ${diskKey}`,
  )({
    run: run.run,
    diskKey,
    reader: proxy,
  });
  state.state = 'transferring';
  run.waitsFor = null;
  run.show();
  const transfer = say('transferDisk', { queue: proxyQueue(proxy), summary: `disk ${diskKey} on proxy ${proxy}` });
  noteDone(run, state, await transfer({ access, assignment: assigned }));
}

function noteDone(run: VmRun, state: DiskState, summary: TransferSummary): void {
  state.state = 'done';
  state.readBytes += summary.readBytes;
  state.sentBytes += summary.sentBytes;
  run.show();
}

/** The proxy of this way's pair, its lease confirmed just now. */
async function confirmedProxy({ run, leases, pair }: Way): Promise<ProxyId> {
  const { workflowId } = run;
  try {
    const leaseIds = leases.held().map((lease) => lease.leaseId);
    await say('confirmLeases', { queue: controlQueue })({ workflowId, leaseIds });
  } catch (error) {
    if (viewOf(error).code !== 'LEASE_LOST') throw error;
    run.note({ level: 'info', code: 'LEASE_LOST', message: 'resources are taken again: their leases were freed' });
    await leases.again();
  }
  const proxies = proxiesOf(leases.held());
  return proxies[pair % proxies.length]!;
}

async function sayWhyProxyIsSilent(run: VmRun, state: DiskState): Promise<void> {
  const queue = proxyQueue(state.proxyId!);
  const { silentMs } = await say('probeQueue', { queue: controlQueue, summary: queue })({ queue });
  const isAlive = silentMs !== null && silentMs < ALIVE_MS;
  run.waitsFor = isAlive
    ? `disk ${state.diskKey} waits for proxy ${state.proxyId}: it is there, and busy`
    : `disk ${state.diskKey} waits for proxy ${state.proxyId}, which does not answer`;
  run.show();
}

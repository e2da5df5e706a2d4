/** The way of a restore: slots, targets, disks side by side, and only then their names. */
import { workflowInfo } from '@temporalio/workflow';
import type { Endpoint } from '../schema/domain/hypervisor.ts';
import type { ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, controlWaitQueue, proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { TargetAccess } from '../schema/domain/restore-point.ts';
import { type HeldLease, requestOrders } from '../schema/domain/scheduling.ts';
import type { RestoredDisk } from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { ProxyTries } from './proxy-tries.ts';
import { MACHINE_WAIT_MS, type RestoreRun } from './restore-run.ts';
import { runAllOrCancel } from './side-by-side.ts';
import type { UndoList } from './undo-list.ts';

export async function restoreDisks(run: RestoreRun, undo: UndoList): Promise<void> {
  const proxies = await acquire(run, undo);
  const proxy = proxies[0]!;
  run.enter('preparing');
  const { endpoint, suspect } = await run.machines.on(
    run.repository,
    'openRestore',
  )({
    restorePointId: run.input.restorePointId,
  });
  if (suspect)
    run.note({
      level: 'warning',
      code: 'DAMAGED_BLOCK',
      message: 'the restore point is marked suspect: check the disks',
    });
  const machine = proxyCtlQueue(proxy);
  const { folder, format } = run.input;
  undo.push('the files begun', () => run.machines.on(machine, 'discardTargets')({ run: run.run, folder }));
  const disks = run.started.disks.map(({ diskKey, sizeBytes, fileName }) => ({ diskKey, sizeBytes, name: fileName }));
  const targets = await run.machines.on(machine, 'createTargets')({ run: run.run, folder, format, disks });
  run.enter('transferring');
  const restored: Omit<RestoredDisk, 'file'>[] = [];
  const waiting = [...targets];
  const next = async (): Promise<void> => {
    for (let target = waiting.shift(); target; target = waiting.shift())
      restored.push(await restoreOne(run, proxy, endpoint, target));
  };
  await runAllOrCancel(proxies.map(() => next));
  run.enter('finishing');
  const files = await run.machines.on(machine, 'finishTargets')({ run: run.run, folder });
  undo.drop('the files begun');
  for (const disk of restored)
    run.disks.push({ ...disk, file: files.find(({ diskKey }) => diskKey === disk.diskKey)?.file ?? '' });
}

/** One entry per disk that may be restored at once; all of one proxy, which holds the files. */
async function acquire(run: RestoreRun, undo: UndoList): Promise<ProxyId[]> {
  const { workflowId, startTime } = workflowInfo();
  const { proxies, repositoryId, disks } = run.started;
  undo.push('leases', () => say('releaseResources', { queue: controlQueue })({ workflowId, leaseIds: null }));
  const held = await say('acquireResources', { queue: controlWaitQueue, summary: 'proxy and repository slots' })({
    workflowId,
    requestNumber: 0,
    runKey: run.run,
    order: requestOrders.restore,
    manual: true,
    arrivedAt: startTime.getTime(),
    wants: { vmId: null, hostId: null, proxies, excludedProxies: [], repositoryId, pairs: Math.max(1, disks.length) },
  });
  const granted = held.filter((lease) => lease.kind === 'proxy');
  const ours = granted.filter(({ id }) => id === granted[0]!.id);
  await giveBack(held, new Set(ours.map(({ pair }) => pair)));
  return ours.map(({ id }) => id as ProxyId);
}

/** Slots of other proxies are of no use: the files are on one. */
async function giveBack(held: readonly HeldLease[], kept: ReadonlySet<number | null>): Promise<void> {
  const leaseIds = held.filter(({ pair }) => !kept.has(pair)).map(({ leaseId }) => leaseId);
  const { workflowId } = workflowInfo();
  if (leaseIds.length > 0) await say('releaseResources', { queue: controlQueue })({ workflowId, leaseIds });
}

async function restoreOne(
  run: RestoreRun,
  proxy: ProxyId,
  endpoint: Endpoint,
  target: TargetAccess,
): Promise<Omit<RestoredDisk, 'file'>> {
  const { diskKey } = target;
  const { restorePointId } = run.input;
  const at = { queue: proxyQueue(proxy), summary: `disk ${diskKey} on proxy ${proxy}` };
  const tries = triesOf(run, `disk ${diskKey}`);
  for (;;) {
    run.disk(diskKey, 'transferring');
    try {
      const done = await say('restoreDisk', at)({ run: run.run, restorePointId, diskKey, endpoint, target });
      tries.end();
      run.disk(diskKey, 'done');
      return done;
    } catch (error) {
      run.disk(diskKey, 'failed');
      await tries.another(error, proxy);
    }
  }
}

const triesOf = (run: RestoreRun, what: string): ProxyTries =>
  new ProxyTries({
    verb: 'restoreDisk',
    what,
    machineWaitMs: MACHINE_WAIT_MS,
    tell: (waitsFor) => run.waits.tell(what, waitsFor),
    note: (finding) => run.note(finding),
  });

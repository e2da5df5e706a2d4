/** The way of a restore: slots, targets, disks side by side, and only then their names. */
import { isCancellation, sleep, workflowInfo } from '@temporalio/workflow';
import type { Endpoint } from '../schema/domain/hypervisor.ts';
import type { ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, controlWaitQueue, proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { TargetAccess } from '../schema/domain/restore-point.ts';
import { requestOrders } from '../schema/domain/scheduling.ts';
import type { RestoredDisk } from '../schema/domain/sessions.ts';
import { say } from './say.ts';
import { isWorthAnotherTry, timeoutTypeOf, viewOf } from './failures.ts';
import type { RestoreRun } from './restore-run.ts';
import { runAllOrCancel } from './side-by-side.ts';
import type { UndoList } from './undo-list.ts';

const MOST_TRIES = 5;
const FIRST_PAUSE_MS = 2000;
const LONGEST_SILENCE_MS = 15 * 60_000;

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
  const machine = { name: `proxy ${proxy}`, queue: proxyCtlQueue(proxy) };
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
  const granted = held.filter((lease) => lease.kind === 'proxy').map((lease) => lease.id as ProxyId);
  return granted.filter((proxy) => proxy === granted[0]);
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
  let silentSinceMs: number | null = null;
  for (let tries = 1; ;) {
    run.disk(diskKey, 'transferring');
    try {
      const done = await say('restoreDisk', at)({ run: run.run, restorePointId, diskKey, endpoint, target });
      run.disk(diskKey, 'done');
      return done;
    } catch (error) {
      run.disk(diskKey, 'failed');
      const view = viewOf(error, `proxy ${proxy}`);
      if (isCancellation(error) || !isWorthAnotherTry(view) || tries >= MOST_TRIES) throw error;
      if (timeoutTypeOf(error) === 'SCHEDULE_TO_START') {
        silentSinceMs ??= Date.now();
        if (Date.now() - silentSinceMs > LONGEST_SILENCE_MS) throw error;
        run.waitsFor = `disk ${diskKey} waits for proxy ${proxy}`;
        continue;
      }
      silentSinceMs = null;
      run.note({ level: 'info', code: view.code, message: `disk ${diskKey} goes on after: ${view.message}` });
      await sleep(FIRST_PAUSE_MS * 2 ** (tries - 1));
      tries += 1;
    }
  }
}

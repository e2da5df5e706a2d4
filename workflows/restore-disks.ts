/** The way of a restore: slots, targets, disks side by side, and only then their names. */
import { CancellationScope, CancelledFailure, workflowInfo } from '@temporalio/workflow';
import type { Activities } from '../activities/contract.ts';
import type { DiskKey, MachineId, ProxyId } from '../schema/domain/ids.ts';
import { controlQueue, controlWaitQueue, proxyCtlQueue, proxyQueue } from '../schema/domain/queues.ts';
import type { TargetAccess } from '../schema/domain/restore-point.ts';
import { type HeldLease, requestOrders } from '../schema/domain/scheduling.ts';
import type { RestoredDisk } from '../schema/domain/sessions.ts';
import { errorView, failureOf, lastHeartbeatOf } from './failures.ts';
import { say } from './say.ts';
import { ProxyTries } from './proxy-tries.ts';
import { MACHINE_WAIT_MS, type RestoreRun } from './restore-run.ts';
import { runAllOrCancel } from './side-by-side.ts';
import type { UndoList } from './undo-list.ts';

type FinishedTarget = Awaited<ReturnType<Activities['finishTargets']>>[number];
type Restored = Omit<RestoredDisk, 'file' | 'proxyId'>;
type Opened = Awaited<ReturnType<Activities['openRestore']>>;
/** `opened`: granted just now. `remake`: what a proxy had open for writing may have died with it; the same targets again, never new ones. */
type Way = {
  run: RestoreRun;
  proxy: ProxyId;
  opened: Opened;
  reopen: () => Promise<Opened>;
  remake: () => Promise<TargetAccess[]>;
};

export async function restoreDisks(run: RestoreRun, undo: UndoList): Promise<void> {
  const proxies = await acquire(run, undo);
  const { proxy, machineId } = proxies[0]!;
  run.enter('preparing');
  const reopen = (): Promise<Opened> => openRestore(run, machineId);
  const opened = await reopen();
  const message = 'the restore point is marked suspect: check the disks';
  if (opened.suspect) run.note({ level: 'warning', code: 'DAMAGED_BLOCK', message });
  const { folder } = run.input;
  const machine = proxyCtlQueue(proxy);
  undo.push('the files begun', () => run.machines.on(machine, 'discardTargets')({ run: run.run, folder }));
  const made = { format: run.input.format, disks: disksOf(run) };
  const make = (begun: boolean): Promise<TargetAccess[]> =>
    run.machines.on(machine, 'createTargets')({ run: run.run, folder, ...made, begun });
  const targets = await make(false);
  run.enter('transferring');
  const remake = oneAtATime(() => make(true));
  const restored = await restoreAll({ run, proxy, opened, reopen, remake }, targets, proxies.length);
  run.enter('finishing');
  // Up to here a stop takes everything back; from here it only goes forward.
  if (CancellationScope.current().consideredCancelled) throw new CancelledFailure('the session was stopped');
  const files = await CancellationScope.nonCancellable(() =>
    run.machines.on(machine, 'finishTargets')({ run: run.run, folder, made }),
  );
  undo.drop('the files begun');
  for (const disk of restored) run.disks.push({ ...disk, file: fileOf(disk.diskKey, files), proxyId: proxy });
}

async function openRestore(run: RestoreRun, machineId: MachineId | undefined): Promise<Opened> {
  const { restorePointId } = run.input;
  const of = { restorePointId, run: run.run, ...(machineId === undefined ? {} : { machineId }) };
  return await run.machines.on(run.repository, 'openRestore')(of);
}

const disksOf = ({ started }: RestoreRun) =>
  started.disks.map(({ diskKey, sizeBytes, fileName }) => ({ diskKey, sizeBytes, name: fileName }));

function oneAtATime<T>(work: () => Promise<T>): () => Promise<T> {
  let last: Promise<unknown> = Promise.resolve();
  return () => {
    const next = last.then(work, work);
    last = next.catch(() => undefined);
    return next;
  };
}

/** In the order of the targets. What is granted ends some day, and each disk may take days: each has a grant of its own. */
async function restoreAll(way: Way, targets: readonly TargetAccess[], atOnce: number): Promise<Restored[]> {
  const restored: Restored[] = [];
  const waiting = [...targets.entries()];
  const work = async (): Promise<void> => {
    let granted: Opened | null = way.opened;
    for (let next = waiting.shift(); next; next = waiting.shift()) {
      restored[next[0]] = await restoreOne(way, next[1], granted ?? (await way.reopen()));
      granted = null;
    }
  };
  await runAllOrCancel(Array.from({ length: atOnce }, () => work));
  return restored;
}

/** A proxy of the version before tells no files when a finish is repeated: then nobody has seen that they are there. */
function fileOf(diskKey: DiskKey, files: readonly FinishedTarget[]): string {
  const told = files.find((file) => file.diskKey === diskKey);
  if (told) return told.file;
  const message = `the proxy has not said that the file of disk ${diskKey} is there: look into the folder, or restore anew`;
  throw failureOf(errorView('STORAGE_ERROR', message));
}

/** One entry per disk that may be restored at once; all of one proxy, which holds the files. */
async function acquire(
  run: RestoreRun,
  undo: UndoList,
): Promise<{ proxy: ProxyId; machineId: MachineId | undefined }[]> {
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
  return ours.map(({ id, machineId }) => ({ proxy: id as ProxyId, machineId }));
}

/** Slots of other proxies are of no use: the files are on one. */
async function giveBack(held: readonly HeldLease[], kept: ReadonlySet<number | null>): Promise<void> {
  const leaseIds = held.filter(({ pair }) => !kept.has(pair)).map(({ leaseId }) => leaseId);
  const { workflowId } = workflowInfo();
  if (leaseIds.length > 0) await say('releaseResources', { queue: controlQueue })({ workflowId, leaseIds });
}

/** What a proxy needs to reach it. */
function wayTo({ endpoint, grant, grantEnd }: Opened): Pick<Opened, 'endpoint' | 'grant' | 'grantEnd'> {
  const granted = grant === undefined ? {} : { grant };
  return { endpoint, ...granted, ...(grantEnd === undefined ? {} : { grantEnd }) };
}

async function restoreOne(
  { run, proxy, reopen, remake }: Way,
  first: TargetAccess,
  granted: Opened,
): Promise<Restored> {
  const { diskKey } = first;
  const { restorePointId } = run.input;
  const at = { queue: proxyQueue(proxy), summary: `disk ${diskKey} on proxy ${proxy}` };
  const tries = triesOf(run, `disk ${diskKey}`);
  let where = wayTo(granted);
  for (let target = first; ;) {
    run.disk(diskKey, 'transferring');
    try {
      const done = await say('restoreDisk', at)({ run: run.run, restorePointId, diskKey, ...where, target });
      tries.end();
      run.disk(diskKey, 'done', done.stages);
      return { ...done, ...run.stagesOf(diskKey) };
    } catch (error) {
      run.disk(diskKey, 'failed', lastHeartbeatOf(error)?.stages);
      await tries.another(error, proxy);
      // What was granted ends some day; this try may be as long as the one before.
      where = wayTo(await reopen());
      target = (await remake()).find((made) => made.diskKey === diskKey) ?? target;
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

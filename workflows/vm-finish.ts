/** The end of a VM's backup: the seal is the one commit point, what follows only goes forward. */
import type { Checkpoint, Released } from '../schema/domain/hypervisor.ts';
import type { SealRequest } from '../schema/domain/restore-point.ts';
import { controlQueue } from '../schema/domain/queues.ts';
import { say } from './say.ts';
import { viewOf } from './failures.ts';
import type { UndoList } from './undo-list.ts';
import type { VmRun } from './vm-run.ts';

export async function sealVm(run: VmRun, undo: UndoList, checkpoint: Checkpoint, released: Released): Promise<void> {
  run.enter('sealing');
  run.sealed = await run.machines.on(run.repository, 'sealRestorePoint')(sealRequest(run, checkpoint, released));
  undo.drop('the restore point');
  undo.drop('the checkpoint');
}

function sealRequest(run: VmRun, checkpoint: Checkpoint, { referencePoint }: Released): SealRequest {
  const { takenAt, reached, reachedWhy, frozenMs, leftOut } = checkpoint;
  const why = reachedWhy ? { why: reachedWhy } : {};
  return {
    restorePointId: run.restorePointId!,
    run: run.run,
    takenAt,
    referencePoint,
    consistency: { asked: run.input.job.consistency, reached, frozenMs, ...why },
    warnings: run.findings.filter((finding) => finding.level === 'warning'),
    leftOut,
    transfers: [...run.disks.values()].map(({ diskKey, readBytes, sentBytes }) => ({ diskKey, readBytes, sentBytes })),
  };
}

/** Commit after seal (invariant 3). The restore point stands without it: then older reference points linger, a warning. */
export async function commitReferencePoint(run: VmRun): Promise<void> {
  const keep = run.sealed?.manifest.referencePoint ?? null;
  if (!keep) return;
  try {
    await run.machines.on(run.host, 'commitReferencePoint')({ lineage: run.lineage, keep });
  } catch (error) {
    const view = viewOf(error);
    run.warn(view.code, `older reference points could not be dropped yet: ${view.message}`);
  }
}

/** After the leases are given back: success scripts, and the catalog's row, which may take as long as the catalog is away. */
export async function finishVm(run: VmRun): Promise<void> {
  const { sealed, input } = run;
  if (!sealed) return;
  run.enter('recording');
  const script = input.job.scripts.success;
  if (script !== null) await completeGuest(run);
  try {
    await say('recordRestorePoint', { queue: controlQueue })(sealed);
  } catch (error) {
    const view = viewOf(error);
    run.warn(view.code, `the restore point is sealed, but the catalog does not list it: ${view.message}`);
  }
}

async function completeGuest(run: VmRun): Promise<void> {
  const { vm, job } = run.input;
  try {
    const of = { vm: vm.vm, run: run.run, script: job.scripts.success };
    run.note(...(await run.machines.on(run.guest, 'completeGuest')(of)).warnings);
  } catch (error) {
    const view = viewOf(error);
    run.warn(view.code, `the script after the seal did not run: ${view.message}`);
  }
}

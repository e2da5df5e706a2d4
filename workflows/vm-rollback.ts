/**
 * How a VM's backup takes back what it began. Before any rollback the repository decides, durably: sealed or aborted
 * (invariant 2). Sealed: forward. Not to be reached: both reference points stay, and the next session decides.
 */
import type { AbortOutcome } from '../schema/domain/restore-point.ts';
import { viewOf } from './failures.ts';
import { commitReferencePoint } from './vm-finish.ts';
import type { VmRun } from './vm-run.ts';

export class VmRollback {
  readonly #run: VmRun;
  #decision: Promise<AbortOutcome> | null = null;

  constructor(run: VmRun) {
    this.#run = run;
  }

  async thaw(): Promise<void> {
    const { machines, hostUndo, run, input, findings } = this.#run;
    const { vm, job } = input;
    const { warnings } = await machines.on(hostUndo, 'thawGuest')({ vm: vm.vm, run, script: job.scripts.postThaw });
    findings.push(...warnings);
  }

  /** Releases it whatever the repository says: a checkpoint is held no longer than need be. */
  async checkpoint(): Promise<void> {
    const { machines, hostUndo, run } = this.#run;
    await this.#release();
    const decision = await this.#decide().catch(() => null);
    if (decision?.outcome === 'aborted') await machines.on(hostUndo, 'discardReferencePoint')({ run });
    if (decision === null)
      this.#run.note({
        level: 'info',
        code: 'UNREACHABLE',
        message: 'the new reference point and the one before are kept until the repository has decided',
      });
  }

  /** A checkpoint that was lost on the way is gone like a released one; why it was lost is the run's own error by now. */
  async #release(): Promise<void> {
    const { machines, hostUndo, run } = this.#run;
    try {
      await machines.on(hostUndo, 'releaseCheckpoint')({ run });
    } catch (error) {
      if (!['CHECKPOINT_LOST', 'SCRATCH_FULL'].includes(viewOf(error).code)) throw error;
    }
  }

  async abort(): Promise<void> {
    await this.#decide();
  }

  #decide(): Promise<AbortOutcome> {
    this.#decision ??= this.#askRepository();
    return this.#decision;
  }

  async #askRepository(): Promise<AbortOutcome> {
    const run = this.#run;
    const { restorePointId } = run;
    const decision = await run.machines.on(run.repository, 'abortRestorePoint')({ restorePointId, run: run.run });
    if (decision.outcome === 'aborted') return decision;
    run.sealed = decision.sealed;
    run.restorePointId = decision.sealed.restorePointId;
    const after = run.error ?? viewOf(new Error('an unknown failure'));
    run.warn(after.code, `the restore point was sealed before this happened, and counts: ${after.message}`);
    await commitReferencePoint(run);
    return decision;
  }
}

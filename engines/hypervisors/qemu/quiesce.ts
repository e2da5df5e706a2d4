/** The freeze around the instant: directly before and directly after, bounded, and believed only on the guest's word. */
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { CheckpointSpec, Reason } from '../../../schema/domain/hypervisor.ts';
import type { Freezer } from '../provider.ts';
import type { Outcome } from './run-states.ts';

/** The keeper thaws by then, come what may, so that the whole of it stays below its bound of 10 s (invariant 7). */
const FREEZE_DEADLINE_MS = 9_000;

/**
 * Runs `transact` with the guest frozen, as the policy wants it. Consistent is only what our own thaw found frozen to
 * its end. GUEST_REQUIRED, GUEST_THAWED_EARLY: policy `require`, and it was not.
 */
export async function quiesced(
  { run, vm, consistency }: Pick<CheckpointSpec, 'run' | 'vm' | 'consistency'>,
  freezer: Freezer,
  transact: () => Promise<void>,
): Promise<Outcome> {
  const crash = (reachedWhy?: Reason): Outcome => ({
    reached: 'crash',
    frozenMs: null,
    ...(reachedWhy && { reachedWhy }),
  });
  if (consistency === 'none') {
    await transact();
    return crash();
  }
  const notFrozen = await freeze();
  if (notFrozen) {
    if (consistency === 'require')
      throw new TidemarkError('GUEST_REQUIRED', `vm ${vm.vmId} could not be frozen: ${notFrozen.message}`, {
        ...vm,
        run,
      });
    await transact();
    return crash(notFrozen);
  }
  let outcome: Outcome;
  try {
    const early = await thawedEarly();
    if (!early || consistency === 'prefer') await transact();
    outcome = early ? crash(early) : { reached: 'filesystem', frozenMs: null };
  } catch (error) {
    // The keeper thaws in any case; what failed is the transaction.
    await thaw();
    throw error;
  }
  const { why, frozenMs } = await thaw();
  if (outcome.reached === 'filesystem') outcome = why ? crash(why) : { ...outcome, frozenMs };
  if (outcome.reachedWhy && consistency === 'require')
    throw new TidemarkError('GUEST_THAWED_EARLY', `vm ${vm.vmId}: ${outcome.reachedWhy.message}`, { ...vm, run });
  return outcome;

  async function freeze(): Promise<Reason | null> {
    try {
      const { fileSystems } = await freezer.freeze(vm, run, FREEZE_DEADLINE_MS);
      if (fileSystems > 0) return null;
      await thaw();
      return { code: 'GUEST_FREEZE_FAILED', message: 'the guest agent froze no file system' };
    } catch (error) {
      return reasonOf(error);
    }
  }

  async function thawedEarly(): Promise<Reason | null> {
    const early = { code: 'GUEST_THAWED_EARLY', message: 'the guest was thawed before the checkpoint was taken' };
    return await freezer.isFrozen(vm).then((frozen) => (frozen ? null : early), reasonOf);
  }

  async function thaw(): Promise<{ why: Reason | null; frozenMs: number | null }> {
    try {
      const { byUs, frozenMs } = await freezer.thaw(vm, run);
      const late = 'the guest was thawed by something else before the checkpoint was known to be complete';
      return { why: byUs ? null : { code: 'GUEST_THAWED_EARLY', message: late }, frozenMs };
    } catch (error) {
      return { why: reasonOf(error), frozenMs: null };
    }
  }
}

const reasonOf = (error: unknown): Reason => ({ code: errorCodeOf(error) ?? 'BUG', message: messageOf(error) });

/** Freezing a simulated guest around the moment of the checkpoint, by its policy. */
import { errorCodeOf, messageOf, TidemarkError } from '../../../schema/domain/errors.ts';
import type { Capabilities, Checkpoint, CheckpointSpec } from '../../../schema/domain/hypervisor.ts';
import type { Freezer } from '../provider.ts';

const FREEZE_DEADLINE_MS = 10_000;

export type Quiescing = { spec: CheckpointSpec; freezer: Freezer; kind: Capabilities['quiesce'] };
export type Quiesced<T> = Pick<Checkpoint, 'reached' | 'reachedWhy' | 'frozenMs'> & { result: T };

/**
 * `freeze` is the hypervisor's own freezing; it fails by throwing. GUEST_REQUIRED: the policy is `require` and the guest
 * could not be frozen. GUEST_THAWED_EARLY: it was thawed before the moment was taken.
 */
export async function quiesced<T>(
  { spec, freezer, kind }: Quiescing,
  freeze: () => Promise<void>,
  take: () => Promise<T>,
): Promise<Quiesced<T>> {
  const { run, vm, consistency } = spec;
  if (consistency === 'none') return { reached: 'crash', frozenMs: null, result: await take() };
  try {
    if (kind === 'none') throw new TidemarkError('GUEST_UNREACHABLE', `VM ${vm.vmId} cannot be quiesced`);
    await freeze();
    if (kind === 'agent') await freezer.freeze(vm, run, FREEZE_DEADLINE_MS);
  } catch (error) {
    if (consistency === 'require')
      throw new TidemarkError('GUEST_REQUIRED', `VM ${vm.vmId} could not be frozen: ${messageOf(error)}`, {}, error);
    const reachedWhy = { code: errorCodeOf(error) ?? 'BUG', message: messageOf(error) };
    return { reached: 'crash', reachedWhy, frozenMs: null, result: await take() };
  }
  if (kind === 'hypervisor') return { reached: 'filesystem', frozenMs: 0, result: await take() };
  const result = await take().catch(async (error: unknown) => {
    await freezer.thaw(vm, run);
    throw error;
  });
  const { byUs, frozenMs } = await freezer.thaw(vm, run);
  if (!byUs)
    throw new TidemarkError('GUEST_THAWED_EARLY', `VM ${vm.vmId} was thawed before the checkpoint was complete`);
  return { reached: 'filesystem', frozenMs, result };
}
